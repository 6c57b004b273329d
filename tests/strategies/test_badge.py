"""BADGE against the gradient embeddings themselves."""

import pytest
import torch
import torch.nn.functional as F

from alkit import Experiment
from alkit.strategies import TensorPool, make_strategy
from alkit.strategies.badge import badge, gradient_factors


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def embeddings(logits, features):
    """The gradient of the cross-entropy of each image's own predicted class with respect to the last layer."""
    weight = torch.zeros(logits.shape[1], features.shape[1], dtype=logits.dtype, requires_grad=True)
    rows = []
    for z, x in zip(logits, features, strict=True):
        loss = F.cross_entropy((z + weight @ x)[None], z.argmax()[None])
        rows.append(torch.autograd.grad(loss, weight)[0].flatten())
    return torch.stack(rows)


def obvious(logits, features, budget, generator):
    """k-means++ on the embeddings, drawn by the same race."""
    g = embeddings(logits, features)
    numbers = source(int(torch.randint(2**62, (1,), generator=generator)))
    chosen = [int(g.norm(dim=1).argmax())]
    while len(chosen) < budget:
        weight = torch.stack([(g - g[i]).square().sum(1) for i in chosen]).amin(0)
        key = weight / torch.empty_like(weight).exponential_(generator=numbers)
        key[chosen] = -1
        chosen.append(int(key.argmax()))
    return chosen


def some(count=40, classes=4, width=6, seed=0):
    generator = source(seed)
    shape = {"generator": generator, "dtype": torch.float64}
    return torch.randn(count, classes, **shape) * 2, torch.randn(count, width, **shape)


def test_the_factors_are_those_of_the_gradient():
    logits, features = some()
    r, x = gradient_factors(logits, features)
    torch.testing.assert_close((r[:, :, None] * x[:, None]).flatten(1), embeddings(logits, features))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 5, 39])
def test_the_picks_are_those_of_k_means_plus_plus_on_the_embeddings(seed, budget):
    logits, features = some(seed=seed)
    assert badge(logits, features, budget, source(seed)).tolist() == obvious(logits, features, budget, source(seed))


def test_the_second_pick_is_drawn_in_proportion_to_the_squared_distance():
    logits, features = some(6, 3, 2)
    g = embeddings(logits, features)
    first = int(g.norm(dim=1).argmax())
    weight = (g - g[first]).square().sum(1)
    generator = source(1)
    draws = torch.tensor([int(badge(logits, features, 2, generator)[1]) for _ in range(4000)])
    share = torch.bincount(draws, minlength=6) / 4000
    torch.testing.assert_close(share.double(), weight / weight.sum(), atol=0.03, rtol=0)


def test_float32_and_scaled_features_give_the_same_picks():
    logits, features = some()
    expected = badge(logits.float(), features.float(), 20, source(3))
    assert torch.equal(expected, badge(logits.float(), features.float() * 2.0**100, 20, source(3)))


def test_values_that_are_not_finite_are_refused():
    logits, features = some()
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="not a finite number"):
            badge(logits.index_fill(0, torch.tensor([1]), bad), features, 3, source())
        with pytest.raises(ValueError, match="not a finite number"):
            badge(logits, features.index_fill(0, torch.tensor([1]), bad), 3, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 40"):
        badge(logits, features, 41, source())


def test_no_embedding_is_formed():
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    logits, features = some(500, 30, 30)
    with Watch():
        badge(logits, features, 5, source())
    assert 0 < largest <= 500 * 30


def pool_of(logits, features, labelled=3):
    m = torch.arange(labelled) * 3
    return TensorPool(
        torch.arange(len(features)) * 3 + 1, m, torch.zeros_like(m), logits.shape[1],
        logits=logits, model_features=features,
    )  # fmt: skip


def test_the_embeddings_are_the_gradients_of_the_models_last_layer_whatever_the_fixed_features():
    """A hidden layer on fixed features: by autograd on the last layer's own weight."""
    fixed = torch.randn(20, 9, generator=source(1), dtype=torch.float64)
    hidden = (fixed @ torch.randn(9, 5, generator=source(2), dtype=torch.float64)).relu()
    weight = torch.randn(4, 5, generator=source(3), dtype=torch.float64, requires_grad=True)
    gradients = []
    for x in hidden:
        z = weight @ x
        gradients.append(torch.autograd.grad(F.cross_entropy(z[None], z.argmax()[None]), weight)[0].flatten())
    logits = (hidden @ weight.T).detach()
    m = torch.arange(3)
    pool = TensorPool(torch.arange(20), m, m, 4, logits=logits, features=fixed, model_features=hidden)
    answer = make_strategy(Experiment(method="badge")).query(pool, 6, source())
    norms = torch.stack(gradients).norm(dim=1)
    torch.testing.assert_close(answer.utilities.double(), norms)
    assert answer.indices.tolist() == obvious(logits, hidden, 6, source())


@pytest.mark.parametrize("kind", ["varied", "constant", "extreme", "saturated", "zero"])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(("count", "budget"), [(1, 1), (12, 12), (12, 3)])
@pytest.mark.parametrize("labelled", [0, 3])
def test_the_strategy_survives_degenerate_pools(kind, classes, count, budget, labelled):
    logits, features = (part.float() for part in some(count, classes))
    if kind == "constant":
        logits, features = torch.zeros_like(logits), torch.ones_like(features)
    if kind == "extreme":
        features = features * 1e30
    if kind == "saturated":
        logits = logits.sign() * 1e30
    if kind == "zero":
        features = torch.zeros_like(features)
    strategy = make_strategy(Experiment(method="badge"))
    answer = strategy.query(pool_of(logits, features, labelled), budget, source())
    assert len(set(answer.indices.tolist())) == budget
    assert set(answer.indices.tolist()) <= set(range(1, 3 * count, 3))
    assert answer.utilities.shape == (count,)
    assert answer.utilities.isfinite().all()
    torch.manual_seed(5)
    assert torch.equal(answer.indices, strategy.query(pool_of(logits, features), budget, source()).indices)

"""Graph selection against the dense adjacency and autograd."""

import pytest
import torch
import torch.nn.functional as F

from alkit import Experiment
from alkit.models import GCN
from alkit.strategies import TensorPool, graph, make_strategy
from alkit.strategies.graph import SimilarityGraph, dropout_mask, gcn_scores, similarity_product


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def dense_adjacency(features):
    """A, as the paper's text has it."""
    x = F.normalize(features)
    a = x @ x.T - torch.eye(len(x), dtype=x.dtype)
    return a @ torch.diag(1 / a.sum(0)) + torch.eye(len(x), dtype=x.dtype)


def loss_of(logits, labelled, unlabelled, weight=1.2):
    """The paper's, from logits, so that a saturated score costs a finite loss."""
    return -F.logsigmoid(logits[labelled]).mean() - weight * F.logsigmoid(-logits[unlabelled]).mean()


def some_features(count=40, width=7, dtype=torch.float64, seed=0):
    return torch.rand(count, width, generator=source(seed), dtype=dtype) * 3


def dense_training(features, labelled, unlabelled, generator, steps, hidden=16, dropout=0.3, weight=1.2):
    """The method by autograd on the dense adjacency, with the same first weights and the same dropout."""
    a, x = dense_adjacency(features), F.normalize(features)
    gcn = GCN(x.shape[1], hidden, dropout, generator).to(x.dtype)
    masks = source(int(torch.randint(2**62, (1,), generator=generator)))
    optimizer = torch.optim.Adam(gcn.parameters(), lr=1e-3, weight_decay=5e-4)
    for _ in range(steps):
        h = (a @ x @ gcn.weight1 + gcn.bias1).relu()
        h = h * dropout_mask(h, dropout, masks).detach() / (1 - dropout)
        s = (a @ h @ gcn.weight2 + gcn.bias2).sigmoid()[:, 0]
        loss = -s[labelled].log().mean() - weight * (1 - s[unlabelled]).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    h = (a @ x @ gcn.weight1 + gcn.bias1).relu()
    return (a @ h @ gcn.weight2 + gcn.bias2).sigmoid()[:, 0].detach(), h.detach()


@pytest.mark.parametrize("count", [2, 3, 40])
@pytest.mark.parametrize("columns", [1, 5])
def test_the_product_is_that_of_the_dense_adjacency(count, columns):
    features = some_features(count)
    h = torch.randn(count, columns, generator=source(), dtype=torch.float64)
    torch.testing.assert_close(similarity_product(features, h), dense_adjacency(features) @ h)


def test_the_product_takes_features_of_any_length_and_sign():
    features = torch.randn(30, 4, generator=source(), dtype=torch.float64)
    h = torch.randn(30, 3, generator=source(1), dtype=torch.float64)
    expected = dense_adjacency(features) @ h
    torch.testing.assert_close(similarity_product(features, h), expected)
    torch.testing.assert_close(similarity_product(features * 1e150, h), expected)
    torch.testing.assert_close(similarity_product(F.normalize(features), h), expected)


def test_a_row_of_zeros_follows_the_formula():
    features = some_features(10)
    features[3] = 0
    h = torch.randn(10, 2, generator=source(), dtype=torch.float64)
    torch.testing.assert_close(similarity_product(features, h), dense_adjacency(features) @ h)


def test_a_node_without_neighbours_keeps_itself_alone():
    assert similarity_product(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]])).item() == pytest.approx(2, abs=1e-5)
    apart = torch.eye(3)
    torch.testing.assert_close(similarity_product(apart, apart), apart)


def test_the_smoothed_features_are_a_times_x():
    features = some_features(50)
    whole = SimilarityGraph.of(features[:20], features[20:])
    torch.testing.assert_close(whole.smoothed(), dense_adjacency(features) @ F.normalize(features))


def test_no_node_by_node_matrix_is_formed():
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    features = some_features(2000, 8, torch.float32)
    with Watch():
        similarity_product(features, features)
        gcn_scores(features, torch.arange(2000) < 50, source(), steps=2, hidden=8)
    assert 0 < largest <= 2000 * 8 * 8


def test_weights_and_biases_lie_within_one_over_the_root_of_the_out_features():
    gcn = GCN(5, 100, generator=source())
    for parameter, reach in [(gcn.weight1, 0.1), (gcn.bias1, 0.1), (gcn.weight2, 1.0), (gcn.bias2, 1.0)]:
        assert parameter.abs().max() <= reach
    assert gcn.weight1.abs().max() > 0.09
    assert gcn.weight1.shape == (5, 100)
    assert gcn.weight2.shape == (100, 1)


def test_the_network_follows_the_formula_with_and_without_dropout():
    features = some_features(12)
    whole, a = SimilarityGraph.of(features), dense_adjacency(features)
    gcn = GCN(7, 6, 0.25, source()).double()
    keep = torch.rand(12, 6, generator=source()) > 0.25
    h = (a @ F.normalize(features) @ gcn.weight1 + gcn.bias1).relu()
    for mask, kept in [(None, h), (keep, h * keep / 0.75)]:
        expected = (a @ kept @ gcn.weight2 + gcn.bias2)[:, 0]
        torch.testing.assert_close(gcn(whole.smoothed(), whole.product, mask), expected)


@pytest.mark.parametrize("chunk", [21, 1 << 22])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradients_are_autograds(monkeypatch, chunk, dropout):
    monkeypatch.setattr(graph, "CHUNK", chunk)
    whole = SimilarityGraph.of(some_features(30, 7))
    gcn = GCN(7, 8, dropout, source()).double()
    labelled, unlabelled = torch.arange(30) >= 22, torch.arange(30) < 20
    keep = torch.cat([dropout_mask(part, dropout, s) for s in [source(5)] for part in torch.empty(30, 8).split(3)])
    if chunk > 30 * 7:
        keep = dropout_mask(torch.empty(30, 8), dropout, source(5))
    loss = loss_of(gcn(whole.smoothed(), whole.product, keep), labelled, unlabelled)
    expected = torch.autograd.grad(loss, list(gcn.parameters()))
    cost = labelled / 8 + 1.2 * unlabelled / 20
    with torch.no_grad():
        scratch = torch.empty(30, 8, dtype=torch.float64)
        ours = graph.step_gradients(gcn, whole, whole.smoothed(), labelled.double(), cost.double(), scratch, source(5))
    for mine, its in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


def test_the_scores_are_those_of_dense_training():
    features, labelled = some_features(60), torch.arange(60) >= 50
    expected, _ = dense_training(features, labelled, ~labelled, source(3), steps=200)
    scores = gcn_scores(features, labelled, source(3), hidden=16)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    single = gcn_scores(features.float(), labelled, source(3), hidden=16)
    torch.testing.assert_close(single, expected, rtol=1e-3, atol=1e-3)


def test_labelled_nodes_score_higher_once_trained():
    features = torch.cat([some_features(50), some_features(10, seed=1) + torch.tensor([9.0, 0, 0, 0, 0, 0, 0])])
    labelled = torch.arange(60) >= 50
    scores = gcn_scores(features, labelled, source(), hidden=16, steps=400, lr=1e-2)
    assert scores[labelled].mean() > scores[~labelled].mean() + 0.2


@pytest.mark.parametrize("bias", [-1e30, -300.0, 300.0, 1e30])
def test_the_gradients_are_autograds_and_finite_where_the_scores_saturate(bias):
    whole, labelled = SimilarityGraph.of(some_features(30, 7)), torch.arange(30) >= 22
    gcn = GCN(7, 8, 0.0, source()).double()
    with torch.no_grad():
        gcn.bias2.fill_(bias)
    loss = loss_of(gcn(whole.smoothed(), whole.product), labelled, ~labelled)
    expected = torch.autograd.grad(loss, list(gcn.parameters()))
    cost = labelled / 8 + 1.2 * ~labelled / 22
    with torch.no_grad():
        scratch = torch.empty(30, 8, dtype=torch.float64)
        ours = graph.step_gradients(gcn, whole, whole.smoothed(), labelled.double(), cost.double(), scratch, source())
    for mine, its in zip(ours, expected, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


def test_dropout_drops_the_right_share_and_is_a_function_of_its_generator():
    mask = dropout_mask(torch.empty(8000, 999), 0.3, source())
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert abs(mask.mean().item() - 0.7) < 0.0005, "0.3 lies between two numbers of 8 bits"
    assert abs((mask[:, :-1] * mask[:, 1:]).mean().item() - 0.49) < 0.002
    assert abs((mask[:-1] * mask[1:]).mean().item() - 0.49) < 0.002
    assert torch.equal(mask, dropout_mask(torch.empty(8000, 999), 0.3, source()))
    assert dropout_mask(torch.empty(5, 3), 0.0, source()).all()
    assert abs(dropout_mask(torch.empty(8000, 999), 0.9999, source()).mean().item() - 1 / 256) < 0.0005, "its limit"


def test_the_scores_are_a_function_of_the_generator():
    features, labelled = some_features(30, dtype=torch.float32), torch.arange(30) < 5
    first = gcn_scores(features, labelled, source(1), steps=5)
    torch.manual_seed(99)
    assert torch.equal(first, gcn_scores(features, labelled, source(1), steps=5))
    assert not torch.equal(first, gcn_scores(features, labelled, source(2), steps=5))


def test_features_that_are_not_finite_are_refused():
    features = some_features(5)
    features[2, 2] = torch.nan
    with pytest.raises(ValueError, match="not a finite number"):
        similarity_product(features, features)


def pool_of(features, labelled_features, cycle=1):
    n, m = len(features), len(labelled_features)
    return TensorPool(
        torch.arange(n) * 3 + 1, torch.arange(m) * 3, torch.zeros(m, dtype=torch.int64), 2, cycle,
        features=features, labelled_features=labelled_features,
    )  # fmt: skip


def test_uncertain_gcn_asks_for_the_scores_nearest_the_margin():
    features = some_features(30)
    experiment = Experiment(method="uncertain_gcn", gcn_margin=0.4, gcn_steps=50, gcn_hidden=16)
    answer = make_strategy(experiment).query(pool_of(features[:22], features[22:]), 5, source(2))
    place = torch.arange(30)
    scores, _ = dense_training(features, place >= 22, place < 22, source(2), steps=50)
    utilities = -(scores[:22] - 0.4).abs()
    torch.testing.assert_close(answer.utilities, utilities, rtol=1e-4, atol=1e-5)
    assert answer.indices.tolist() == (3 * utilities.sort(descending=True).indices[:5] + 1).tolist()


def test_core_gcn_covers_the_hidden_features_from_the_labelled_ones():
    features = some_features(30)
    experiment = Experiment(method="core_gcn", gcn_steps=20, gcn_hidden=16)
    answer = make_strategy(experiment).query(pool_of(features[:22], features[22:]), 6, source(2))
    place = torch.arange(30)
    _, h = dense_training(features, place >= 22, place < 22, source(2), steps=20)
    chosen = []
    for _ in range(6):
        nearest = torch.cdist(h[:22], h[[*range(22, 30), *chosen]]).amin(1)
        chosen.append(int(nearest.argmax()))
    assert answer.indices.tolist() == [3 * i + 1 for i in chosen]


def test_the_quirk_counts_cycle_times_budget_labelled_images():
    features = some_features(30)
    pool = pool_of(features[:20], features[20:], cycle=2)
    settings = {"method": "uncertain_gcn", "gcn_steps": 30, "gcn_hidden": 16, "budget": 3}
    plain = make_strategy(Experiment(**settings)).query(pool, 3, source())
    quirk = make_strategy(Experiment(**settings, quirks={"gcn_assumes_equal_init": True})).query(pool, 3, source())
    place = torch.arange(30)
    scores, _ = dense_training(features, (place >= 20) & (place < 26), place < 20, source(), steps=30)
    torch.testing.assert_close(quirk.utilities, -(scores[:20] - 0.1).abs(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain.utilities, quirk.utilities)


@pytest.mark.parametrize("method", ["uncertain_gcn", "core_gcn"])
@pytest.mark.parametrize(("count", "labelled", "budget"), [(1, 4, 1), (12, 4, 12), (12, 0, 3), (1, 0, 1)])
@pytest.mark.parametrize("kind", ["varied", "constant", "zero"])
def test_the_strategies_survive_degenerate_pools(method, count, labelled, budget, kind):
    points = some_features(count + labelled, dtype=torch.float32)
    points = {"varied": points, "constant": torch.ones_like(points), "zero": torch.zeros_like(points)}[kind]
    experiment = Experiment(method=method, gcn_steps=3, gcn_hidden=8)
    answer = make_strategy(experiment).query(pool_of(points[:count], points[count:]), budget, source())
    assert len(set(answer.indices.tolist())) == budget
    assert answer.utilities.shape == (count,)
    assert answer.utilities.isfinite().all()

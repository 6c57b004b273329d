"""BAIT against explicit Fisher matrices and explicit inverses."""

import pytest
import torch

from alkit.strategies.bait import bait


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count, classes=3, width=5, seed=0):
    logits = 2 * torch.randn(count, classes, generator=source(seed), dtype=torch.float64)
    return torch.randn(count, width, generator=source(seed + 100), dtype=torch.float64), logits


def v_of(z, logits, form):
    """The rows of one image, as they are defined."""
    p = logits.softmax(0)
    if form == "binary":
        top = p.max()
        return torch.stack([top.sqrt() * (1 - top) * z, (1 - top).sqrt() * (0 - top) * z])
    one = torch.eye(len(p), dtype=p.dtype)
    return torch.stack([p[j].sqrt() * torch.outer(one[j] - p, z).flatten() for j in range(len(p))])


def obvious(features, logits, labelled_features, labelled_logits, budget, form, ridge=1.0):
    """Every matrix formed and inverted anew at every step."""
    pool = [v_of(z, x, form) for z, x in zip(features, logits, strict=True)]
    known = [v_of(z, x, form) for z, x in zip(labelled_features, labelled_logits, strict=True)]
    m = len(known)
    fisher = sum(v.T @ v for v in pool + known) / (len(pool) + m)
    eye = torch.eye(pool[0].shape[1], dtype=torch.float64)
    information = ridge * eye
    if m:
        information = information + sum(v.T @ v for v in known) / m * (m / (m + budget))
    pool = [v * (budget / (m + budget)) ** 0.5 for v in pool]
    chosen = []

    def traces(sign):
        inverse = torch.linalg.inv(information)
        one = torch.eye(len(pool[0]), dtype=torch.float64)
        return [
            sign
            * float(
                torch.trace(v @ inverse @ fisher @ inverse @ v.T @ torch.linalg.inv(sign * one + v @ inverse @ v.T))
            )
            for v in pool
        ]

    for _ in range(min(2 * budget, len(pool))):
        gain = traces(1)
        best = max((i for i in range(len(pool)) if i not in chosen), key=lambda i: gain[i])
        chosen.append(best)
        information = information + pool[best].T @ pool[best]
    while len(chosen) > budget:
        loss = traces(-1)
        least = min(chosen, key=lambda i: loss[i])
        chosen.remove(least)
        information = information - pool[least].T @ pool[least]
    return chosen


@pytest.mark.parametrize("form", ["binary", "full"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("labelled", [0, 1, 12])
@pytest.mark.parametrize("budget", [1, 6, 30])
def test_bait_is_its_definition_with_explicit_inverses(form, classes, labelled, budget):
    pool, known = some(40, classes), some(labelled, classes, seed=1)
    assert bait(*pool, *known, budget, form).tolist() == obvious(*pool, *known, budget, form)


@pytest.mark.parametrize("form", ["binary", "full"])
def test_the_ridge_and_large_features(form):
    (z, logits), (y, known) = some(30, seed=3), some(8, seed=4)
    for ridge, scale in [(0.01, 1.0), (1.0, 30.0), (10.0, 3.0)]:
        given = (z * scale, logits, y * scale, known)
        assert bait(*given, 5, form, ridge).tolist() == obvious(*given, 5, form, ridge)


def test_the_greedy_gain_is_what_the_trace_falls_by():
    """The first pick is the one whose addition makes tr(F·M) least: the objective itself."""
    (z, logits), (y, known) = some(25, seed=5), some(6, seed=6)
    pool = [v_of(a, b, "full") for a, b in zip(z, logits, strict=True)]
    labelled = [v_of(a, b, "full") for a, b in zip(y, known, strict=True)]
    fisher = sum(v.T @ v for v in pool + labelled) / 31
    start = torch.eye(15, dtype=torch.float64) + sum(v.T @ v for v in labelled) / (6 + 13)
    after = [float(torch.trace(torch.linalg.inv(start + 13 / (6 + 13) * v.T @ v) @ fisher)) for v in pool]
    first = min(range(25), key=lambda i: after[i])
    assert first in bait(z, logits, y, known, 13, "full").tolist()


def test_float32_in_blocks_makes_the_same_picks(monkeypatch):
    from alkit.strategies import bait as module

    (z, logits), (y, known) = some(200, 5, 12, seed=7), some(20, 5, 12, seed=8)
    expected = bait(z, logits, y, known, 15)
    monkeypatch.setattr(module, "DOUBLE", 0)
    monkeypatch.setattr(module, "BLOCK", 64)
    assert torch.equal(bait(z.float(), logits.float(), y.float(), known.float(), 15), expected)


def test_images_that_say_nothing_are_distinct_and_the_same_each_time():
    z, logits = torch.zeros(5, 4), torch.zeros(5, 3)
    picks = bait(z, logits, z[:0], logits[:0], 3).tolist()
    assert len(set(picks)) == 3
    assert picks == bait(z, logits, z[:0], logits[:0], 3).tolist()
    assert sorted(bait(z, logits, z, logits, 5, "full").tolist()) == [0, 1, 2, 3, 4]


def test_bad_input_is_refused():
    z, logits = some(10)
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        bait(z, logits, z, logits, 11)
    with pytest.raises(ValueError, match="not a finite number"):
        bait(z * torch.nan, logits, z, logits, 1)
    with pytest.raises(ValueError, match="form: expected binary or full"):
        bait(z, logits, z, logits, 1, "half")
    with pytest.raises(ValueError, match="ridge"):
        bait(z, logits, z, logits, 1, ridge=0)
    with pytest.raises(ValueError, match="at most 4096"):
        bait(torch.zeros(3, 2000), torch.zeros(3, 3), torch.zeros(0, 2000), torch.zeros(0, 3), 1, "full")

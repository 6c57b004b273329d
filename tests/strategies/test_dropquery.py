"""DropQuery against its definition, image by image."""

import pytest
import torch

from alkit.strategies import dropquery as module
from alkit.strategies.dropquery import disagreement, dropquery, nearest_to_centres
from alkit.strategies.k_means import k_means


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count, width=20, classes=4, seed=0):
    features = torch.randn(count, width, generator=source(seed), dtype=torch.float64)
    weight = torch.randn(width, classes, generator=source(seed + 1), dtype=torch.float64)
    return features, lambda x: x @ weight


def test_disagreement_counts_the_passes_with_another_class():
    features, classify = some(50)
    seed = int(torch.randint(2**62, (1,), generator=source(3)))
    draws = torch.Generator().manual_seed(seed)
    expected = torch.zeros(50, dtype=torch.int64)
    for _ in range(3):
        kept = torch.rand(50, 20, generator=draws) >= 0.75
        for i in range(50):
            dropped = torch.stack([features[i, j] / 0.25 if kept[i, j] else features[i, j] * 0 for j in range(20)])
            expected[i] += int(classify(dropped[None]).argmax()) != int(classify(features[i][None]).argmax())
    assert torch.equal(disagreement(features, classify, source(3)), expected)
    assert 0 < expected.sum() < 150


def test_dropout_of_0_changes_nothing_and_of_nearly_1_most():
    features, classify = some(400)
    assert disagreement(features, classify, source(), dropout=0.0).sum() == 0
    assert disagreement(features, classify, source(), dropout=0.99).float().mean() > 1.5


def test_of_each_cluster_the_member_nearest_its_mean():
    points = torch.randn(80, 3, generator=source(4))
    cluster = k_means(points, 6, source(5))
    expected = []
    for place in cluster.unique():
        members = (cluster == place).nonzero().flatten()
        far = (points[members] - points[members].mean(0)).norm(dim=1)
        expected.append((-len(members), int(place), int(members[far.argmin()])))
    assert nearest_to_centres(points, 6, source(5)).tolist() == [pick for _, _, pick in sorted(expected)]


@pytest.mark.parametrize("budget", [1, 3, 8])
def test_the_unsure_are_clustered_and_the_threshold_falls_where_they_are_few(budget):
    features, classify = some(100)
    picks, changed = dropquery(features, classify, budget, source(6))
    enough = [t for t in (2, 1, 0) if int((changed >= t).sum()) >= 25 * budget]
    threshold = enough[0] if enough else 0
    assert bool((changed[picks] >= threshold).all())
    again = source(6)
    disagreement(features, classify, again)
    unsure = (changed >= threshold).nonzero().flatten()
    unit = features[unsure] / features[unsure].norm(dim=1, keepdim=True)
    assert picks.tolist() == unsure[nearest_to_centres(unit, budget, again)].tolist()


def test_images_that_do_not_differ_are_filled_up():
    features, classify = some(1)
    picks, _ = dropquery(features.repeat(9, 1), classify, 9, source())
    assert sorted(picks.tolist()) == list(range(9))
    assert dropquery(features, classify, 0, source())[0].tolist() == []


def test_blocks_do_not_change_what_is_a_function_of_the_generator(monkeypatch):
    features, classify = some(300)
    picks = dropquery(features, classify, 4, source(7))[0]
    torch.manual_seed(1)
    assert torch.equal(dropquery(features, classify, 4, source(7))[0], picks)
    monkeypatch.setattr(module, "ROWS", 400)
    assert len(set(dropquery(features, classify, 4, source(7))[0].tolist())) == 4


def test_bad_input_is_refused():
    features, classify = some(10)
    with pytest.raises(ValueError, match="not a finite number"):
        dropquery(features * torch.nan, classify, 2, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        dropquery(features, classify, 11, source())

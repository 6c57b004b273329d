"""ALFA-Mix against its definition, image by image and anchor by anchor."""

import pytest
import torch

from alkit.strategies import alfa_mix as module
from alkit.strategies.alfa_mix import alfa_mix, anchors, flips
from alkit.strategies.dropquery import nearest_to_centres


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count, labelled=12, width=6, classes=4, seed=0):
    def numbers(*shape, at):
        return torch.randn(*shape, generator=source(seed + at), dtype=torch.float64)

    weight = numbers(width, classes, at=1)
    labels = torch.arange(labelled) % (classes - 1)  # the last class has no label
    return numbers(count, width, at=2), (lambda x: x @ weight), numbers(labelled, width, at=3), labels, weight


def obvious(features, weight, labelled, labels, strength=0.2):
    """α, elementwise, for every image and class that has labels."""
    counts = []
    for z in features:
        p = (z @ weight).softmax(0)
        own = int(p.argmax())
        gradient = weight @ (p - torch.nn.functional.one_hot(torch.tensor(own), len(p)))
        count = 0
        for label in sorted(set(labels.tolist())):
            a = labelled[labels == label].mean(0)
            epsilon = strength / len(z) ** 0.5
            alpha = epsilon * (a - z).norm() * gradient / gradient.norm() / (a - z)
            mixed = alpha * a + (1 - alpha) * z
            count += int((mixed @ weight).argmax()) != own
        counts.append(count)
    return torch.tensor(counts)


@pytest.mark.parametrize("strength", [0.05, 0.2, 1.0])
def test_flips_are_those_of_the_mixed_features(strength):
    features, classify, labelled, labels, weight = some(60)
    found = flips(features, anchors(labelled, labels, 4)[0], classify, strength)
    expected = obvious(features, weight, labelled, labels, strength)
    assert torch.equal(found, expected)
    assert 0 < (expected > 0).sum() < 60


def test_anchors_are_the_means_of_the_classes_that_have_labels():
    _, _, labelled, labels, _ = some(1)
    centres, classes = anchors(labelled, labels, 4)
    assert classes.tolist() == [0, 1, 2]
    for place in range(3):
        torch.testing.assert_close(centres[place], labelled[labels == place].mean(0))


@pytest.mark.parametrize("budget", [1, 5])
def test_the_flipping_ones_are_clustered(budget):
    features, classify, labelled, labels, weight = some(200)
    picks, flipped = alfa_mix(features, classify, labelled, labels, 4, budget, source(1))
    unsure = (obvious(features, weight, labelled, labels) > 0).nonzero().flatten()
    assert torch.equal((flipped > 0).nonzero().flatten(), unsure)
    assert picks.tolist() == unsure[nearest_to_centres(features[unsure], budget, source(1))].tolist()


def test_too_few_flips_are_filled_up_at_random():
    features, classify, labelled, labels, _ = some(50)
    given = (features, classify, labelled, labels, 4)
    flipped = alfa_mix(*given, 1, source())[1]
    count = int((flipped > 0).sum())
    first, other = alfa_mix(*given, count + 10, source(1))[0], alfa_mix(*given, count + 10, source(2))[0]
    assert len(set(first.tolist())) == count + 10
    assert set((flipped > 0).nonzero().flatten().tolist()) <= set(first.tolist())
    assert set(first.tolist()) != set(other.tolist())
    none = alfa_mix(features, classify, labelled[:0], labels[:0], 4, 5, source())
    assert none[1].sum() == 0
    assert len(set(none[0].tolist())) == 5


def test_an_image_on_its_anchor_is_not_mixed_and_blocks_change_nothing(monkeypatch):
    features, classify, labelled, labels, _ = some(30)
    centres = anchors(labelled, labels, 4)[0]
    assert flips(centres[:1], centres[:1], classify, 100.0).tolist() == [0]
    expected = flips(features, centres, classify)
    monkeypatch.setattr(module, "NUMBERS", 40)
    assert torch.equal(flips(features, centres, classify), expected)


def test_bad_input_is_refused():
    features, classify, labelled, labels, _ = some(10)
    with pytest.raises(ValueError, match="not a finite number"):
        alfa_mix(features * torch.nan, classify, labelled, labels, 4, 2, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        alfa_mix(features, classify, labelled, labels, 4, 11, source())

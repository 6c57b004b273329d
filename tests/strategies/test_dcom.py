"""DCoM against its definition, distance by distance."""

import math

import pytest
import torch

from alkit.strategies.dcom import RADII, competence, covered, dcom, pure_radii
from alkit.strategies.k_means import k_means
from alkit.strategies.probcover import probcover, purity_radius


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count, labelled, seed=0, classes=3, width=4):
    middle = 2 * torch.randn(classes, width, generator=source(9), dtype=torch.float64)

    def blobs(number, at):
        kind = torch.randint(classes, (number,), generator=source(at))
        return middle[kind] + 0.8 * torch.randn(number, width, generator=source(at + 1), dtype=torch.float64), kind

    (x, kind), (known, labels) = blobs(count, seed), blobs(labelled, seed + 50)
    noise = torch.randn(count, classes, generator=source(seed + 2), dtype=torch.float64)
    return x, known, labels, 2 * torch.nn.functional.one_hot(kind, classes) + noise


def obvious(x, known, labels, logits, budget, seed):
    points = torch.cat([x, known])
    points = points / points.norm(dim=1, keepdim=True)
    n, m = len(x), len(known)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    radius = min(math.sqrt(purity_radius(points, k_means(points, 3, source(seed)), 0.95)), 1.1)
    p = logits.softmax(1).sort(1, descending=True).values
    m_ = 1 - (p[:, 0] - p[:, 1])
    m_ = (m_ - m_.min()) / (m_.max() - m_.min())
    classes = torch.cat([logits.argmax(1), labels])
    threshold = 0.4 + 0.2 * float((distance[n:] < radius).any(0).double().mean())
    radii = []
    for i in range(m):
        pure = [r for r in RADII if (classes[distance[n + i] < r] == labels[i]).double().mean() >= threshold]
        radii.append(max(pure, default=RADII[0]))
    is_covered = torch.stack([distance[n + i] < radii[i] for i in range(m)]).any(0)
    c = (1 + math.exp(-50 * 0.2)) / (1 + math.exp(-50 * (float(is_covered.double().mean()) - 0.8)))
    mean, picks = sum(radii) / m, []
    for _ in range(budget):
        degree = torch.tensor([float(((distance[i] < mean) & ~is_covered).sum()) for i in range(n)])
        score = c * m_ + (1 - c) * degree / max(float(degree.max()), 1)
        score[picks] = -1
        picks.append(int(score.argmax()))
        is_covered = is_covered | (distance[picks[-1]] < mean)
    return picks


@pytest.mark.parametrize("labelled", [1, 4, 12, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_dcom_is_its_definition(labelled, seed):
    given = some(120, labelled, seed)
    assert dcom(*given, 3, 15, source(seed))[0].tolist() == obvious(*given, 15, seed)


def test_with_no_labels_it_is_probcover():
    x, known, labels, _ = some(150, 5)
    picks = dcom(x, known[:0], labels[:0], None, 3, 6, source(3))[0]
    assert picks.tolist() == probcover(x, known[:0], 3, 6, source(3))[0].tolist()


def test_competence_turns_at_the_centre():
    assert competence(1.0) == pytest.approx(1)
    assert competence(0.8) == pytest.approx((1 + math.exp(-10)) / 2)
    assert competence(0.5) < 1e-6


def test_a_ball_is_as_large_as_it_is_pure():
    points = torch.tensor([[0.0], [0.12], [0.22], [0.42], [2.0]], dtype=torch.float64)
    classes = torch.tensor([0, 0, 1, 1, 0])
    centre, label = points[:1], classes[:1]
    assert pure_radii(centre, label, points, classes, 1.0).tolist() == pytest.approx([0.2])
    assert pure_radii(centre, label, points, classes, 0.6).tolist() == pytest.approx([0.4])
    assert pure_radii(centre, label, points, classes, 0.5).tolist() == pytest.approx([1.1])
    assert pure_radii(centre, label + 1, points, classes, 0.9).tolist() == pytest.approx([0.05])
    assert covered(points, centre, torch.tensor([0.22])).tolist() == [True, True, False, False, False]


def test_where_all_is_covered_the_margin_decides():
    x, _, _, logits = some(60, 1)
    same = torch.ones_like(x)
    p = logits.softmax(1).sort(1).values
    expected = (p[:, -1] - p[:, -2]).argsort(stable=True)[:5]
    assert dcom(same, same[:1], logits.argmax(1)[:1], logits, 3, 5, source())[0].tolist() == expected.tolist()


def test_bad_input_is_refused():
    given = some(10, 3)
    with pytest.raises(ValueError, match="not a finite number"):
        dcom(given[0] * torch.nan, *given[1:], 3, 2, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        dcom(*given, 3, 11, source())

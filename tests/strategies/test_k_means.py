"""k-means on the device, against the same algorithm written out and against scikit-learn's."""

import pytest
import torch
from test_typiclust import blobs, source

from alkit.strategies import k_means as module
from alkit.strategies.coreset import unit_rows
from alkit.strategies.k_means import first_centres, k_means, lloyd


def by_hand(points, centres, rounds):
    """Lloyd's algorithm, a point and a cluster at a time."""
    centres, before = centres.clone(), None
    for _ in range(rounds):
        found = [min(range(len(centres)), key=lambda c: (float((p - centres[c]).square().sum()), c)) for p in points]
        if found == before:
            break
        before = found
        for c in range(len(centres)):
            members = [p for p, f in zip(points, found, strict=True) if f == c]
            if members:
                centres[c] = torch.stack(members).mean(0)
    return torch.tensor(found), centres


@pytest.mark.parametrize("block", [7, 1 << 20])
@pytest.mark.parametrize("rounds", [1, 3, 50])
def test_lloyds_algorithm_is_the_one_written_out(rounds, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    points = torch.randn(60, 3, generator=source(), dtype=torch.float64)
    start = torch.cat([points[:5], torch.full((1, 3), 9.0, dtype=torch.float64)])  # the last stays empty
    expected = by_hand(points, start, rounds)
    found = lloyd(points, start, rounds)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    assert torch.equal(found[1][5], start[5])


def test_first_centres_are_points_far_apart_and_a_function_of_the_generator():
    points = unit_rows(blobs([30, 20, 10]))
    centres = first_centres(points, 3, source(3))
    groups = {
        (0 if at < 30 else 1 if at < 50 else 2) for c in centres for at in [int((points - c).norm(dim=1).argmin())]
    }
    assert groups == {0, 1, 2}
    assert torch.equal(centres, first_centres(points, 3, source(3)))
    assert not torch.equal(centres, first_centres(points, 3, source(4)))


def test_the_first_centre_is_uniform_and_the_next_one_by_squared_distance():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    first, second = [0, 0, 0], {0: [0, 0, 0]}
    for seed in range(3000):
        one, other = (int((points[:, 0] == c).nonzero()) for c in first_centres(points, 2, source(seed))[:, 0])
        first[one] += 1
        if one == 0:
            second[0][other] += 1
    assert all(abs(count - 1000) < 120 for count in first)
    assert second[0][0] == 0
    assert second[0][2] / sum(second[0]) == pytest.approx(9 / 10, abs=0.03)


def test_where_all_points_are_the_same_there_are_still_clusters():
    found, _ = lloyd(torch.ones(10, 2), first_centres(torch.ones(10, 2), 3, source()))
    assert found.tolist() == [0] * 10


def test_it_is_as_good_as_scikit_learns():
    points = unit_rows(torch.randn(2000, 16, generator=source(5)))

    def spread(cluster):
        return sum(float((points[cluster == c] - points[cluster == c].mean(0)).square().sum()) for c in range(20))

    theirs = [spread(k_means(points, 20, source(seed))) for seed in range(3)]
    ours = [spread(lloyd(points, first_centres(points, 20, source(seed)))[0]) for seed in range(3)]
    assert sum(ours) < 1.03 * sum(theirs)


@pytest.mark.cuda
def test_on_a_card_it_finds_what_it_finds_here():
    points = unit_rows(blobs([30, 20, 10]))
    start = points[[0, 35, 55]]
    here, there = lloyd(points, start), lloyd(points.cuda(), start.cuda())
    assert torch.equal(here[0], there[0].cpu())
    torch.testing.assert_close(here[1], there[1].cpu())
    assert k_means(points.cuda(), 3, source()).device.type == "cuda"

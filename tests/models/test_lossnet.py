"""LossNet and the strategy that queries what it predicts."""

import pytest
import torch

from alkit import Experiment
from alkit.models import LossNet
from alkit.models.resnet import resnet10
from alkit.objectives import ranking_loss
from alkit.strategies import TensorPool, make_strategy


def maps_of(channels, batch=5, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, 8 // 2**i, 8 // 2**i, generator=source) for i, c in enumerate(channels)]


def test_it_is_pool_linear_relu_a_stage_then_one_linear_over_all():
    channels = (4, 6, 8, 10)
    net, maps = LossNet(channels, hidden=7).requires_grad_(False), maps_of(channels)
    predicted = net(maps)
    for image in range(5):
        joined = []
        for branch, stage in zip(net.branches, maps, strict=True):
            averages = [stage[image, c].sum() / stage[image, c].numel() for c in range(stage.shape[1])]
            for row, bias in zip(branch.weight, branch.bias, strict=True):
                joined.append(max(0.0, float(sum(w * a for w, a in zip(row, averages, strict=True)) + bias)))
        assert len(joined) == 4 * 7
        by_hand = sum(float(w) * x for w, x in zip(net.linear.weight[0], joined, strict=True)) + float(net.linear.bias)
        assert float(predicted[image]) == pytest.approx(by_hand, abs=1e-5)


def test_the_default_width_is_the_papers_128():
    net = LossNet((4, 8, 16, 32))
    assert [tuple(b.weight.shape) for b in net.branches] == [(128, 4), (128, 8), (128, 16), (128, 32)]
    assert tuple(net.linear.weight.shape) == (1, 512)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 65)])
def test_its_shape_follows_the_backbone_whatever_the_images(channels, size):
    backbone = resnet10(10, in_channels=channels, width=4)
    _, _, maps = backbone.stages(torch.randn(3, channels, size, size))
    assert LossNet(backbone.stage_channels)(maps).shape == (3,)


def test_one_image_gives_one_number_not_a_scalar():
    assert LossNet((2, 2, 2, 2))(maps_of((2, 2, 2, 2), batch=1)).shape == (1,)


def test_a_wrong_number_of_maps_is_refused():
    with pytest.raises(ValueError, match="4 stages' maps, not 3"):
        LossNet((2, 2, 2, 2))(maps_of((2, 2, 2)))


def test_it_learns_to_rank_losses():
    torch.manual_seed(0)
    maps = maps_of((3, 3, 3, 3), batch=32)
    target = maps[0].mean((1, 2, 3)) + maps[2].mean((1, 2, 3))
    net = LossNet((3, 3, 3, 3), hidden=16)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        order = torch.randperm(32)
        loss = ranking_loss(net([m[order] for m in maps]), target[order])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    ranks = torch.stack([net(maps).detach(), target]).argsort(1).argsort(1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.9


def pool_with(predicted):
    n = len(predicted)
    return TensorPool(10 + torch.arange(n), torch.arange(2), torch.zeros(2).long(), 2, predicted_loss=predicted)


def ask(predicted, budget):
    strategy = make_strategy(Experiment(method="ll4al"))
    return strategy.query(pool_with(predicted), budget, torch.Generator().manual_seed(0))


def test_the_highest_predicted_losses_are_asked_for_first():
    query = ask(torch.tensor([0.1, -3.0, 2.5, 0.7]), 3)
    assert query.indices.tolist() == [12, 13, 10]
    assert query.utilities.tolist() == pytest.approx([0.1, -3.0, 2.5, 0.7])


def test_ties_go_to_the_lowest_index_and_the_whole_pool_can_be_asked_for():
    assert ask(torch.zeros(4), 4).indices.tolist() == [10, 11, 12, 13]
    assert ask(torch.tensor([1e30]), 1).indices.tolist() == [10]


def test_a_predicted_loss_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        ask(torch.tensor([0.0, float("nan")]), 1)

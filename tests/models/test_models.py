"""The backbone has the papers' weights by name, and its parts add up to the whole."""

import pytest
import torch
import torch.nn.functional as F

from alkit.models import resnet10, resnet18, seeded


def test_resnet18_has_the_released_checkpoints_keys() -> None:
    keys = set(resnet18(10).state_dict())
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "linear.weight", "linear.bias"} | {f"bn1.{n}" for n in norm}
    for stage in range(1, 5):
        for block in range(2):
            at = f"layer{stage}.{block}"
            expected |= {f"{at}.conv1.weight", f"{at}.conv2.weight"}
            expected |= {f"{at}.bn{i}.{n}" for i in (1, 2) for n in norm}
            if stage > 1 and block == 0:
                expected |= {f"{at}.shortcut.0.weight"} | {f"{at}.shortcut.1.{n}" for n in norm}
    assert keys == expected
    assert sum(p.numel() for p in resnet18(10).parameters()) == 11_173_962


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4])
def test_lower_and_upper_make_the_whole(layer: int) -> None:
    model = resnet10(5, 1, 4).eval()
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(model.upper(model.lower(images, layer), layer), model(images))


def test_features_are_what_the_last_layer_sees() -> None:
    model = resnet10(5, 3, 4).eval()
    images = torch.randn(2, 3, 32, 32)
    logits, features, maps = model.stages(images)
    torch.testing.assert_close(model.linear(features), model(images))
    torch.testing.assert_close(logits, model(images))
    assert [m.shape[1] for m in maps] == model.stage_channels == [4, 8, 16, 32]
    assert features.shape == (2, model.feature_dim)


@pytest.mark.parametrize(
    ("size", "stem", "last"), [(8, "cifar", 1), (28, "cifar", 4), (64, "cifar", 8), (224, "imagenet", 7)]
)
def test_any_image_size_goes_through(size: int, stem: str, last: int) -> None:
    model = resnet10(3, 1, 4, stem=stem).eval()
    assert model.stages(torch.randn(1, 1, size, size))[2][3].shape[2:] == (last, last)


def test_corner_pooling_sees_one_corner_only() -> None:
    model = resnet10(3, 1, 4, stem="imagenet", pooling="corner")
    last = torch.randn(1, 32, 7, 7)
    changed = last.clone()
    changed[:, :, 4:, 4:] += 1
    torch.testing.assert_close(model.flatten(changed), model.flatten(last))
    torch.testing.assert_close(model.flatten(last), F.avg_pool2d(last, 4).flatten(1))
    model.pooling = "global"
    assert not torch.allclose(model.flatten(changed), model.flatten(last))


def test_initial_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = seeded(lambda: resnet10(3, 1, 4), torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = seeded(lambda: resnet10(3, 1, 4), torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

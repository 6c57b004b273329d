"""The device loop: its schedule, its batches, and that it reads nothing back within an epoch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alkit import Experiment
from alkit.data import ImageSet, from_arrays, load_for
from alkit.data.imageset import TensorPixels
from alkit.data.randomness import generator
from alkit.errors import TrainingError
from alkit.models import build_network, steps
from alkit.models.steps import Draws
from alkit.objectives import OBJECTIVES, objective_of
from alkit.training.evaluate import halved
from alkit.training.loop import Trainer, detaches, features, learning_rate, predict, split_batches, to_device
from alkit.training.pool import ModelPool, posterior_log_probs

METHOD_OF = {
    "cross_entropy": "random",
    "mixup": "mixup",
    "cmam": "cmam",
    "cmam_input": "cmam_input",
    "loss_prediction": "ll4al",
    "weighted": "sbias",
}
Make = Callable[..., Experiment]


def images(count: int = 40, channels: int = 1, size: int = 8) -> ImageSet:
    source = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=source).to(torch.uint8)
    labels = torch.arange(count) % 4
    pixels[labels == 1] //= 4
    return from_arrays("made up", pixels, labels, ["a", "b", "c", "d"], augmentation="crop_flip")


def trainer(experiment: Experiment, data: ImageSet, count: int = 37) -> Trainer:
    network = build_network(
        experiment, data.shape, data.num_classes, torch.Generator().manual_seed(0),
        with_loss_module=objective_of(experiment) == "loss_prediction",
    )  # fmt: skip
    to_device(network, data.device)
    return Trainer(network, data, torch.arange(count), experiment, cycle=1)


def test_the_learning_rate_drops_after_its_milestones() -> None:
    experiment = Experiment(lr=0.1, epochs=200, milestones=[160])
    assert [learning_rate(experiment, epoch) for epoch in (0, 158, 159, 160)] == pytest.approx([0.1, 0.1, 0.1, 0.01])


def test_the_last_batch_may_be_small_but_never_a_single_image() -> None:
    assert [len(b) for b in split_batches(torch.arange(37), 16)] == [16, 16, 5]
    assert [len(b) for b in split_batches(torch.arange(33), 16)] == [16, 17]
    assert [len(b) for b in split_batches(torch.arange(1), 16)] == [2]
    assert torch.equal(torch.cat(split_batches(torch.arange(33), 16)), torch.arange(33))


def test_the_loss_module_is_detached_from_six_tenths_on() -> None:
    experiment = Experiment(method="ll4al", epochs=200, milestones=[160])
    assert [detaches(experiment, epoch) for epoch in (119, 120, 121)] == [False, True, True]


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_learns_and_stops_and_goes_on_with_the_same_bits(objective: str, tiny: Make) -> None:
    data = images()
    experiment = tiny(method=METHOD_OF[objective], epochs=6, milestones=[5])
    whole = trainer(experiment, data)
    for _ in range(6):
        whole.train_epoch()
    assert min(whole.losses) < whole.losses[0]
    first = trainer(experiment, data)
    for _ in range(3):
        first.train_epoch()
    second = trainer(experiment, data)
    second.load_state_dict(first.state_dict())
    while not second.finished:
        second.train_epoch()
    assert second.losses == whole.losses
    for a, b in zip(second.network.state_dict().values(), whole.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class CountReads(TorchDispatchMode):
    """Counts the operations that make the host wait for the device, and copies between devices."""

    READS = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "_to_copy", "_unique2", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        moves = name == "_to_copy" and "device" in kwargs and kwargs["device"] != args[0].device
        if name in self.READS and (name != "_to_copy" or moves):
            self.reads.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_an_epochs_steps_read_nothing_back(objective: str, precision: str, tiny: Make) -> None:
    loop = trainer(tiny(method=METHOD_OF[objective], precision=precision), images())
    loop.network.train()
    with CountReads() as counter:
        loop._steps(0.1)
    assert counter.reads == []


def test_in_bfloat16_every_step_sees_the_weights_that_the_step_before_left(tiny: Make) -> None:
    """Autocast keeps its copies of the weights as long as its context lasts: one an epoch would train on old ones."""
    loop = trainer(tiny(precision="bfloat16"), images())
    linear: Any = loop.network.backbone.linear
    probe = torch.ones(1, linear.in_features)
    seen: list[tuple[float, float]] = []
    plain = loop._loss

    def spy(*arguments: Any) -> torch.Tensor:
        now = torch.nn.functional.linear(probe.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16())
        seen.append((float(linear(probe)[0, 0]), float(now[0, 0])))
        return plain(*arguments)

    loop._loss = spy
    loop.train_epoch()
    assert len({now for _, now in seen}) > 1, "the weights move"
    assert all(used == now for used, now in seen)


def test_the_counter_of_reads_counts() -> None:
    with CountReads() as counter:
        float(torch.ones(1).sum())
    assert counter.reads == ["_local_scalar_dense"]


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_loop_mixes_no_devices_on_a_gpu(objective: str, tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fake CUDA tensors, which have no numbers but refuse to be mixed with the host's.

    Autograd's engine asks for a real GPU, so `backward` only gives each weight a gradient where the weight is.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    experiment = tiny(method=METHOD_OF[objective])
    data = images()
    real = trainer(experiment, data)
    draws, pixels, real_generator = real._draw(), data.images, torch.Generator
    with FakeTensorMode(allow_non_fake_inputs=False):

        def on_gpu(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
            if isinstance(value, (tuple, list)):
                return [on_gpu(part) for part in value]
            return value

        network = build_fake(experiment, data)
        gpu = on_the_gpu(data, on_gpu(pixels), on_gpu(data.labels))
        # a generator on a device that is not there cannot be made, and a graph not recorded
        monkeypatch.setattr(steps, "RECORD", False)
        monkeypatch.setattr(torch, "Generator", lambda device="cpu": real_generator("cpu"))
        loop = Trainer(network, gpu, torch.empty(37, dtype=torch.int64), experiment, 1, torch.empty(37))
        there = Draws(draws.sizes, *({k: on_gpu(v) for k, v in part.items()} for part in (draws.each, draws.once)))
        loop._draw = lambda: there  # type: ignore[method-assign]
        # the fused kernel has no fake form; the loop calls both in the same way
        loop.optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, foreach=True)

        def backward(loss: torch.Tensor) -> None:
            assert loss.device.type == "cuda"
            for weight in network.parameters():
                weight.grad = torch.empty_like(weight)

        def channels(_: ImageSet, images: torch.Tensor, dtype: torch.dtype, repeats: int) -> list[torch.Tensor]:
            """Made once and kept; for fake images, which nothing may keep, it would be made in every step."""
            return [torch.ones(len(data.mean) * repeats, dtype=dtype, device=images.device)] * 2

        monkeypatch.setattr(ImageSet, "_affine", channels)
        monkeypatch.setattr(torch.Tensor, "backward", backward)
        with CountReads() as counter:
            losses = loop._steps(0.1)
    assert counter.reads == [], "nothing is copied between the devices"
    assert losses.device.type == "cuda"
    assert losses.shape == (3,)


def build_fake(experiment: Experiment, data: ImageSet) -> Any:
    from alkit.models import LossNet, Network
    from alkit.models import build_backbone as build

    with torch.device("cuda"):
        backbone: Any = build(experiment, data.shape, data.num_classes)
        wants = objective_of(experiment) == "loss_prediction"
        network = Network(backbone, LossNet(backbone.stage_channels) if wants else None)
    for module in network.modules():
        if hasattr(module, "p"):
            module.p = 0.0  # it would draw
    return network.train()


def on_the_gpu(data: ImageSet, pixels: torch.Tensor, labels: torch.Tensor) -> ImageSet:
    return replace(data, pixels=TensorPixels(pixels), labels=labels, device=torch.device("cuda"))


def test_a_loss_that_is_not_a_number_stops_with_epoch_batch_and_rate(tiny: Make) -> None:
    loop = trainer(tiny(lr=1e30, epochs=3), images(), count=16)
    loop.train_epoch()  # the first step's loss is still a number
    with pytest.raises(TrainingError, match=r"not a number in cycle 1, epoch 2, batch 1 \(learning rate 1e\+29\)"):
        loop.train_epoch()


def test_predictions_do_not_depend_on_the_batch(tiny: Make) -> None:
    data = images()
    network = trainer(tiny(), data).network
    whole = predict(network, data)
    torch.testing.assert_close(predict(network, data, batch_size=7), whole, rtol=1e-4, atol=1e-5)
    chosen = torch.tensor([5, 3, 39])
    torch.testing.assert_close(predict(network, data, chosen), whole[chosen], rtol=1e-4, atol=1e-5)
    assert features(network.backbone, data).shape == (40, 32)
    assert predict(network, data, torch.empty(0, dtype=torch.int64)).shape == (0, 4)


def test_a_posterior_sample_does_not_depend_on_the_batch(tiny: Make) -> None:
    """Where each image has a mask of its own too: else another machine, or a resumed run, would ask another query."""
    train, _ = load_for(tiny(pool_size=300))
    found = []
    for size in (7, 1000):
        experiment = tiny(method="bald", model="mc_dropout_cnn", eval_batch_size=size)
        network = build_network(experiment, train.shape, train.num_classes, generator(0, "weights", 1))
        source = generator(0, "posterior", 1)
        found.append(posterior_log_probs(network.backbone, train, None, experiment, source))
    assert torch.equal(*found)


def test_logits_are_kept_in_half_precision_without_loss_where_it_matters() -> None:
    logits = torch.tensor([[2000.6, 2000.4, -1e6], [3.0, 1.0, 2.0]], dtype=torch.float64)
    kept = halved(logits)
    assert kept.dtype == torch.float16
    assert kept.isfinite().all()
    assert torch.allclose(kept.double().softmax(1), logits.softmax(1), atol=1e-4)


def test_in_bfloat16_predicted_losses_hardly_tie(tiny: Make) -> None:
    """Of 16 bits a network's ranking would be mostly ties, which go to the first image of the pool."""
    train, _ = load_for(tiny(pool_size=None))
    experiment = tiny(method="ll4al", precision="bfloat16")
    network = build_network(experiment, train.shape, train.num_classes, generator(0, "weights", 1), True)
    pool = ModelPool(experiment, network, train, torch.arange(1, len(train)), torch.arange(1), 1, int)
    assert len(pool.predicted_loss.unique()) > 0.95 * len(pool.candidates)


def test_where_memory_runs_out_the_batch_is_halved(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images()
    network = trainer(tiny(), data).network
    whole = predict(network, data)
    forward = network.forward

    def small(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 9:
            raise torch.OutOfMemoryError
        return forward(batch)

    monkeypatch.setattr(network, "forward", small)
    torch.testing.assert_close(predict(network, data, batch_size=40), whole, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(network, "forward", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(TrainingError, match="out of memory"):
        predict(network, data)

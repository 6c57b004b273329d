"""The training loop against the one the papers' programs use, and against the bare step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from alkit import Experiment
from alkit.data import ImageSet, augment, from_arrays
from alkit.models import Network, resnet10, resnet18
from alkit.training.loop import Trainer, predict, to_device
from benchmarks.timing import Comparison, compare

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def made_up_images(count: int, size: int = 32) -> ImageSet:
    """Random colour images: the cost of a step does not depend on what they show."""
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return from_arrays(
        "made up", pixels, source.integers(0, 10, count), [str(c) for c in range(10)], MEAN, STD, "crop_flip"
    )


class PilDataset(Dataset[tuple[Tensor, int]]):
    """The released programs' data path: a PIL image at a time through torchvision's transforms."""

    def __init__(self, data: ImageSet) -> None:
        self.images = [Image.fromarray(image) for image in data.images.permute(0, 2, 3, 1).numpy()]
        self.labels = data.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomCrop(32, padding=4),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def reference_epoch(model: Any, optimizer: Any, loader: Any, cmam: bool, alpha: float = 0.4) -> float:
    """One epoch as the released programs train: float32, four cross-entropies, one `.item()` a step."""
    total = 0.0
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        if cmam:
            lam1, lam2 = np.random.default_rng(0).beta(alpha, alpha, 2)
            order = torch.randperm(len(images))
            first = model.lower(lam1 * images + (1 - lam1) * images[order], 1)
            second = model.lower((1 - lam1) * images + lam1 * images[order], 1)
            logits = model.upper(lam2 * first + (1 - lam2) * second, 1)
            other = labels[order]
            loss = lam2 * (lam1 * F.cross_entropy(logits, labels) + (1 - lam1) * F.cross_entropy(logits, other)) + (
                1 - lam2
            ) * ((1 - lam1) * F.cross_entropy(logits, labels) + lam1 * F.cross_entropy(logits, other))
        else:
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


def trainer(data: ImageSet, backbone: Any, **parameters: Any) -> Trainer:
    """Our loop on all of `data`."""
    settings: dict[str, Any] = {"epochs": 10_000, "milestones": [9_999], "batch_size": 128, "device": "cpu", "lr": 0.01}
    experiment = Experiment(**(settings | parameters))
    network = Network(backbone)
    to_device(network, data.device)
    return Trainer(network, data, torch.arange(len(data)), experiment, cycle=1)


def bare_steps(loop: Trainer, steps: int) -> None:
    """Forward, backward and step on one fixed batch in memory, in the loop's own precision and layout."""
    data, experiment = loop.data, loop.experiment
    images = data.normalise(data.images[: experiment.batch_size]).contiguous(memory_format=torch.channels_last)
    labels = data.labels[: experiment.batch_size]
    loop.network.train()
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=experiment.precision == "bfloat16"):
            loss = F.cross_entropy(loop.network(images).float(), labels)
        loss.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad(set_to_none=True)


def large_network(repetitions: int) -> list[Comparison]:
    """ResNet-18 of width 64 on 32×32 images, batch 128."""
    data, results = made_up_images(384), []
    loader = DataLoader(PilDataset(data), batch_size=128, shuffle=True)
    for method, objective in (("random", "cross_entropy"), ("cmam", "cmam")):
        ours = trainer(data, resnet18(10), method=method, precision="bfloat16", width=64, model="resnet18")
        plain = resnet18(10)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

        def theirs(model: Any = plain, opt: Any = optimizer, mixes: bool = method == "cmam") -> None:
            reference_epoch(model, opt, loader, mixes)

        results.append(
            compare(f"training, ResNet-18, {objective}", ours.train_epoch, "PIL loader, float32", theirs,
                    repetitions, "at least 3")
        )  # fmt: skip
    ours = trainer(data, resnet18(10), precision="bfloat16", width=64, model="resnet18")
    results.append(
        compare("training, ResNet-18, whole loop", ours.train_epoch, "bare step on one batch",
                lambda: bare_steps(ours, 3), repetitions, "at least 0.80")
    )  # fmt: skip
    return results


def small_network(repetitions: int) -> list[Comparison]:
    """ResNet-10 of width 16, the scaled protocols' network: how much of the time is not the bare step."""
    data, results = made_up_images(1280), []
    for precision in ("float32", "bfloat16"):
        ours = trainer(data, resnet10(10), precision=precision, model="resnet10", width=16)
        results.append(
            compare(f"training, ResNet-10, whole loop, {precision}", ours.train_epoch, "bare step on one batch",
                    lambda loop=ours: bare_steps(loop, 10), repetitions, "at least 0.85")
        )  # fmt: skip
    permuted = trainer(data, resnet10(10), method="cmam", precision="bfloat16", model="resnet10")
    paired = trainer(
        data, resnet10(10), method="cmam", precision="bfloat16", model="resnet10", cmam_pairing="involution"
    )
    results.append(
        compare(
            "CMaM, involution", paired.train_epoch, "permutation", permuted.train_epoch, repetitions, "at least 1.15"
        )
    )
    return results


def augmentation(repetitions: int = 5) -> list[dict[str, Any]]:
    """Crop, flip and normalise alone, on one core."""
    data = made_up_images(1280)
    pil = PilDataset(data)
    batches = torch.arange(len(data)).split(128)
    source = torch.Generator().manual_seed(0)

    def ours() -> None:
        draws = augment.draw("crop_flip", len(data), source)
        assert draws is not None
        for images in data.stream(batches, "crop_flip", draws.split(128)):
            data.normalise(images)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = compare(
        "augmentation, 1 core", ours, "PIL transforms", lambda: [pil[i] for i in range(len(pil))], repetitions,
        "at least 10",
    )  # fmt: skip
    torch.set_num_threads(threads)
    return [result.row()]


def evaluation(repetitions: int = 5) -> list[dict[str, Any]]:
    """Scoring a pool, against the same network in float32, eager, batch 128, contiguous."""
    data = made_up_images(512)
    experiment = Experiment(precision="bfloat16", width=64, model="resnet18")
    model = resnet18(10)
    ours = to_device(Network(resnet18(10)), torch.device("cpu"))

    @torch.no_grad()
    def theirs() -> None:
        model.eval()
        for indices in torch.arange(len(data)).split(128):
            model(data.normalise(data.take(indices)))

    result = compare(
        "evaluation, ResNet-18", lambda: predict(ours, data, experiment=experiment), "float32 eager", theirs,
        repetitions, "at least 2",
    )  # fmt: skip
    return [result.row()]


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """The loop with the scaled protocols' network and with the papers', as rows."""
    return [comparison.row() for part in (small_network, large_network) for comparison in part(repetitions)]

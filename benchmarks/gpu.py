"""What a CUDA card does with the kit: `python -m benchmarks gpu`, in under three minutes.

Rates are images a second, medians of interleaved repetitions; a part that fails says so and the others go on.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from alkit import Experiment
from alkit.models import Network, resnet10, resnet18, steps
from alkit.training import devices
from alkit.training.loop import Trainer, predict, to_device
from alkit.training.sharing import mps
from benchmarks.training import PilDataset, made_up_images, reference_epoch

CUDA = torch.device("cuda")
COUNT, BATCH, WIDTH = 5120, 128, 64
QUERIES = ("coreset", "uncertain_gcn", "badge", "typiclust", "probcover")
QUERY_SECONDS = 20
Row = dict[str, Any]


def measure(keep: Callable[[list[Row]], None]) -> list[Row]:
    """All parts; `keep` is given the rows so far after each, so that a lost machine loses one part."""
    rows: list[Row] = []
    for part in (training, small_network, papers_loop, evaluation, side_by_side, queries):
        began = time.perf_counter()
        try:
            with devices.deterministic():
                for row in part():
                    rows.append({"part": part.__name__, **row})
                    print(line(rows[-1]), flush=True)
        except Exception as error:  # the other parts are worth having
            rows.append({"part": part.__name__, "name": "failed", "value": None, "unit": f"{error!r}"[:300]})
            print(line(rows[-1]), flush=True)
        rows.append({"part": part.__name__, "name": "took", "value": time.perf_counter() - began, "unit": "s"})
        keep(rows)
    return rows


def line(row: Row) -> str:
    value = row["value"]
    shown = "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{row['part']:<14} {row['name']:<52} {shown:>10} {row['unit']}"


def markdown(rows: list[Row]) -> str:
    values = ["–" if r["value"] is None else f"{round(r['value'], 2):,}" for r in rows]
    body = [f"| {r['part']} | {r['name']} | {value} | {r['unit']} |"
            for r, value in zip(rows, values, strict=True) if r["name"] != "took"]  # fmt: skip
    return "\n".join(["| part | what | measured | unit |", "| --- | --- | --- | --- |", *body])


def rate(work: Callable[[], Any], images: int, repetitions: int = 3, warm: int = 1) -> float:
    """Images a second of `work`, the median of some repetitions."""
    for _ in range(warm):
        work()
    found = []
    for _ in range(repetitions):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(images / (time.perf_counter() - began))
    return statistics.median(found)


@contextmanager
def recording(flag: bool) -> Iterator[None]:
    before, steps.RECORD = steps.RECORD, flag
    try:
        yield
    finally:
        steps.RECORD = before


def _trainer(data: Any, network: Any, **parameters: Any) -> Trainer:
    experiment = Experiment(epochs=10_000, milestones=[], lr=0.01, device="cuda", **parameters)
    return Trainer(to_device(Network(network), CUDA), data, torch.arange(len(data)), experiment, cycle=1)


# --- training --------------------------------------------------------------------------------------------------------


def training() -> Iterator[Row]:
    """ResNet-18, width 64, 32×32, batch 128: the loop, recorded and eager, and the bare step on one batch."""
    data = made_up_images(COUNT).to(CUDA)
    for precision in ("float32", "bfloat16"):
        for method in ("random", "cmam"):
            for recorded in (True, False):
                with recording(recorded):
                    loop = _trainer(data, resnet18(10, width=WIDTH), method=method, precision=precision,
                                    batch_size=BATCH, model="resnet18", width=WIDTH)  # fmt: skip
                    yield _images(f"loop, {method}, {precision}, {_way(recorded)}", rate(loop.train_epoch, COUNT))
        for recorded, size, last in ((True, BATCH, True), (True, BATCH, False), (False, BATCH, True),
                                     (True, 1024, True)):  # fmt: skip
            layout = "channels-last" if last else "contiguous"
            name = f"bare step, {precision}, batch {size}, {layout}, {_way(recorded)}"
            yield _images(name, bare(data, precision, size, recorded, last))


def bare(data: Any, precision: str, size: int, recorded: bool, channels_last: bool) -> float:
    """Forward, backward and the optimizer's step on one batch that stays: what the loop could reach."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network: Any = Network(resnet18(10, width=WIDTH)).to(CUDA, memory_format=layout)
    options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "fused": True}
    optimizer = torch.optim.SGD(network.parameters(), **options)  # type: ignore[arg-type]
    images = data.normalise(data.take(torch.arange(size, device=CUDA))).contiguous(memory_format=layout)
    labels = data.labels[:size]

    def step(row: Any = None, _: Any = None) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(network(images).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    count = max(10, 40 * BATCH // size)
    if not recorded:
        return rate(lambda: [step() for _ in range(count)], count * size)
    graphs = steps.CudaGraphs(CUDA)
    for _ in range(steps.WARM):
        graphs.warm(step)
    replay = graphs.record(step)
    return rate(lambda: [replay() for _ in range(count)], count * size)


def small_network() -> Iterator[Row]:
    """ResNet-10, width 16, batch 64, bfloat16: a scaled study's step, all of it kernels too small for the card."""
    data = made_up_images(COUNT).to(CUDA)
    for method in ("random", "cmam"):
        for recorded in (True, False):
            with recording(recorded):
                loop = _trainer(data, resnet10(10, width=16), method=method, precision="bfloat16", batch_size=64)
                yield _images(f"loop, {method}, bfloat16, {_way(recorded)}", rate(loop.train_epoch, COUNT, 2))


def papers_loop() -> Iterator[Row]:
    """The released programs' loop: a PIL image at a time through a DataLoader, float32."""
    count = 1920
    images = PilDataset(made_up_images(count))
    for workers in (0, 8):
        network = resnet18(10, width=WIDTH).to(CUDA)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers, pin_memory=True,
                            persistent_workers=workers > 0)  # fmt: skip

        def epoch(loader: Any = loader, network: Any = network, optimizer: Any = optimizer) -> None:
            moved = ((x.to(CUDA), y.to(CUDA)) for x, y in loader)
            reference_epoch(network, optimizer, moved, False)

        yield _images(f"papers' loop, {workers} workers", rate(epoch, count, 2))


def evaluation() -> Iterator[Row]:
    data = made_up_images(COUNT).to(CUDA)
    for precision in ("float32", "bfloat16"):
        experiment = Experiment(precision=precision, width=WIDTH, model="resnet18", device="cuda")
        network = to_device(Network(resnet18(10, width=WIDTH)), CUDA)
        yield _images(f"predict, {precision}", rate(lambda: predict(network, data, experiment=experiment), COUNT))  # noqa: B023


# --- runs side by side -----------------------------------------------------------------------------------------------


def side_by_side() -> Iterator[Row]:
    """How many images a second n processes train on together, with MPS and taking turns."""
    with mps() as (shared, words):
        yield {"name": words, "value": None, "unit": ""}
        for kind, counts in (("large", (1, 2, 3)), ("small", (1, 4, 12))):
            for count in counts:
                yield _images(f"{kind} network, {count} at once, MPS" if shared else f"{kind}, {count} at once",
                              together(kind, count, shared))  # fmt: skip
    yield _images("large network, 3 at once, taking turns", together("large", 3, {}))


def together(kind: str, count: int, environment: dict[str, str], seconds: float = 3.0) -> float:
    """Images a second of `count` processes that train for the same `seconds`."""
    import os

    command = [sys.executable, "-m", "benchmarks.gpu", kind, str(seconds)]
    workers = [subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True) for _ in range(count)]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return float(sum(json.loads(worker.communicate(timeout=120)[0].splitlines()[-1]) for worker in workers))


def worker(kind: str, seconds: float) -> None:
    """One process of `together`: says that it is ready, waits, trains, and prints its rate."""
    data = made_up_images(COUNT).to(CUDA)
    torch.set_num_threads(1)
    with recording(True), devices.deterministic():
        if kind == "large":
            loop = _trainer(data, resnet18(10, width=WIDTH), batch_size=BATCH)
        else:
            loop = _trainer(data, resnet10(10, width=16), batch_size=64, precision="bfloat16")
        loop.train_epoch()
        print("ready", flush=True)
        sys.stdin.readline()
        began, epochs = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            loop.train_epoch()
            epochs += 1
        print(epochs * COUNT / (time.perf_counter() - began), flush=True)


# --- queries ---------------------------------------------------------------------------------------------------------


def queries(count: int = 1_000_000) -> Iterator[Row]:
    """One query of 1,000 among `count` candidates × 512 features; what takes longer than 20 seconds is broken off."""
    import signal

    from alkit.strategies import make_strategy

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    for method in QUERIES:
        experiment = Experiment(method=method, budget=1000, device="cuda")
        make_strategy(experiment).query(_pool(2000), 10, torch.Generator().manual_seed(0))
        pool, strategy = _pool(count), make_strategy(experiment)
        torch.cuda.reset_peak_memory_stats()
        before, began = torch.cuda.memory_allocated(), time.perf_counter()
        signal.alarm(QUERY_SECONDS)
        try:
            strategy.query(pool, 1000, torch.Generator().manual_seed(0))
            torch.cuda.synchronize()
            memory = (torch.cuda.max_memory_allocated() - before) / (4 * 512 * count)
            unit = f"s; {memory:.1f} × the features' memory"
            yield {"name": f"{method}, {count:,} × 512", "value": time.perf_counter() - began, "unit": unit}
        except TimeoutError:
            yield {"name": f"{method}, {count:,} × 512", "value": None, "unit": f"s: over {QUERY_SECONDS}"}
        finally:
            signal.alarm(0)
        del pool
        torch.cuda.empty_cache()


def _pool(count: int) -> Any:
    """Candidates of ten blurred classes on the card."""
    from alkit.strategies import TensorPool

    source = torch.Generator(CUDA).manual_seed(0)
    truth = torch.randint(10, (count + 1000,), generator=source, device=CUDA)
    middle = torch.randn(10, 512, generator=source, device=CUDA)
    features = torch.randn(count + 1000, 512, generator=source, device=CUDA)
    for rows, classes in zip(features.split(65536), truth.split(65536), strict=True):
        rows.add_(middle[classes]).relu_()
    known = truth.cpu()
    return TensorPool(
        torch.arange(count), torch.arange(count, count + 1000), known[count:], 10,
        reveal=lambda index: int(known[index]), features=features[:count], labelled_features=features[count:],
        logits=torch.randn(count, 10, generator=source, device=CUDA),
    )  # fmt: skip


def _images(name: str, value: float) -> Row:
    return {"name": name, "value": value, "unit": "images/s"}


def _way(recorded: bool) -> str:
    return "recorded" if recorded else "eager"


if __name__ == "__main__":
    worker(sys.argv[1], float(sys.argv[2]))

"""`python -m benchmarks [PART ...]`: measure, print one table, and keep each part as JSON.

A part that was measured on this machine with these versions is printed from its file; `--again` measures it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from alkit.storage.files import write_json
from benchmarks import timing

OUT = Path(__file__).parents[1] / "outputs" / "published" / "benchmarks"
PARTS = {
    "training": ("training", "measure"),
    "augmentation": ("training", "augmentation"),
    "evaluation": ("training", "evaluation"),
    "selection": ("selection", "measure"),
    "herding": ("selection", "herding"),
    "heads": ("heads", "measure"),
    "together": ("together", "measure"),
    "data": ("data", "measure"),
    "startup": ("startup", "measure"),
    "accuracy": ("accuracy", "measure"),
    "grid": ("grid", "measure"),
}
WITHOUT_SHARING = ("startup", "accuracy", "grid")  # several processes: only passing time says how long they take


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, memory, versions."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields.get("flags", "").split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": fields.get("model name", platform.processor() or platform.machine()),
        "units": units,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn", "pillow")},
    }


def measure_part(name: str, options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Measure the part `name` and write it to `path`; returns what was written."""
    began = {"load_before": round(os.getloadavg()[0], 2), "began": time.strftime("%Y-%m-%d %H:%M")}
    content: dict[str, Any] = {
        "part": name, "machine": machine(), "repetitions": options.repetitions, **began,
        "threads": torch.get_num_threads(),
        "clock": "processor, one thread" if options.cpu and name not in WITHOUT_SHARING else "passing time",
    }  # fmt: skip

    def keep(rows: list[dict[str, Any]]) -> None:
        write_json(path, content | {"load_after": round(os.getloadavg()[0], 2), "rows": rows})

    if name == "gpu":
        from benchmarks import gpu

        content |= {"clock": "passing time", "card": torch.cuda.get_device_name()}
        rows = gpu.measure(keep)
    elif name == "growth":
        from benchmarks import growth

        content |= {"clock": "both", "threads": 1, "repetitions": 1}
        known = [] if options.again else (_read(path) or {"rows": []})["rows"]
        rows = growth.measure(known=known, keep=keep)
        growth.plot(rows, path.with_suffix(".png"))
    else:
        module, function = PARTS[name]
        rows = getattr(import_module(f"benchmarks.{module}"), function)(options.repetitions)
    keep(rows)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Any] | None:
    """The part in `path`, if it was measured on this machine with these versions."""
    content = json.loads(path.read_text()) if path.exists() else None
    then, now = (None if content is None else content["machine"]), machine()
    # a system reports some megabytes more or less each time it is started
    same = then is not None and then | {"memory_gib": None} == now | {"memory_gib": None}
    return content if same and abs(then["memory_gib"] - now["memory_gib"]) < 1 else None


def markdown(paths: list[Path]) -> str:
    """The kept parts as tables, with the machines that they were measured on."""
    from benchmarks import gpu, growth

    kept = [json.loads(path.read_text()) for path in paths if path.exists()]
    rows = [row for content in kept for row in content["rows"] if content["part"] not in ("growth", "gpu")]
    tables = [timing.markdown(rows)] if rows else []
    tables += [gpu.markdown(content["rows"]) for content in kept if content["part"] == "gpu"]
    tables += [growth.markdown(content["rows"]) for content in kept if content["part"] == "growth"]
    on = {_described(content["machine"]) for content in kept}
    return "\n\n".join([*tables, *(f"Measured on: {machine}." for machine in sorted(on))])


def _described(machine: dict[str, Any]) -> str:
    head = f"{machine['processor']} ({', '.join(machine['units'])}), {machine['cores']} cores"
    rest = {k: v for k, v in machine.items() if k not in ("processor", "units", "cores", "memory_gib", "system")}
    return ", ".join(
        [head, f"{machine['memory_gib']:.0f} GiB, {machine['system']}", *(f"{k} {v}" for k, v in rest.items())]
    )


def main() -> None:
    names = [*PARTS, "growth", "gpu"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all but gpu by default")
    parser.add_argument("--repetitions", type=int, default=5, help="interleaved repetitions of each comparison")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the JSON files")
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    parser.add_argument(
        "--cpu", action="store_true",
        help="one thread, and its processor's seconds: for ratios on a machine that others use too",
    )  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print what is kept, for the README")
    options = parser.parse_args()
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"no part '{sorted(unknown)[0]}': expected some of {', '.join(names)}")
    if options.markdown:
        print(markdown([options.out / f"{name}.json" for name in options.parts or names]))
        return
    if options.cpu:
        torch.set_num_threads(1)
        timing.use_processor_time()
    options.out.mkdir(parents=True, exist_ok=True)
    shown: list[dict[str, Any]] = []
    if "gpu" in options.parts and not torch.cuda.is_available():
        parser.error("gpu: no CUDA card is here")
    for name in options.parts or names[:-1]:
        path = options.out / f"{name}.json"
        content = None if options.again or name == "growth" else _read(path)
        content = measure_part(name, options, path) if content is None else content
        if name == "gpu":
            print(f"{content['card']}: {path}\n", flush=True)  # its lines were printed as they came
        elif name == "growth":
            from benchmarks import growth

            print(growth.table(content["rows"]), "\n", flush=True)
        else:
            shown += content["rows"]
            print(timing.table(content["rows"]), "\n", flush=True)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    if shown and len(options.parts) != 1:
        print(timing.table(shown))


if __name__ == "__main__":
    main()

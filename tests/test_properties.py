"""Whatever comes in, either it is what it says or there is one clear line of ours: never another exception.

Parameters, study files, records, npz files and checkpoints, made up by hypothesis: arbitrary, nearly right, and right
ones that were damaged.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from papermill.iorw import read_yaml_file
from synthetic_study import write_study

from alkit import Experiment, Study, records
from alkit.config.experiment import _NUMERAL
from alkit.config.study_yaml import read_yaml
from alkit.errors import AlkitError, CheckpointError, ConfigError
from alkit.grid import planning
from alkit.grid.status import status_table
from alkit.methods import METHODS
from alkit.quirks import QUIRKS
from alkit.storage.checkpoint import load_checkpoint, previous, save_checkpoint

settings.register_profile(
    "alkit", deadline=None, max_examples=80, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)  # fmt: skip
settings.load_profile("alkit")

FIELDS = sorted(Experiment.model_fields)
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 5, 10, 100, 2**31, 2**63, 10**400, -0.0, 0.1, 0.5, 1.0, 1.5, 1e-4, 1e308, float("inf"), float("nan")]
)
WORDS = st.sampled_from(
    ["", "1e-4", "1_0", "0100", "nan", "auto", "cpu", "cuda:1", "null", "yes", "../x", "a/b", "a\nb", "~", "~no-one/x",
     "self", "$(touch x)", "'; touch x", "<script>", "\x00", "\x1b[31m", "é", *METHODS, *QUIRKS, "simsiam", "adam"]
)  # fmt: skip
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | NUMBERS | WORDS
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(FIELDS) | st.sampled_from([*Study.own_keys(), "parameters", "self", "budgett", "cls"])


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """What `make` gives and no words, or nothing and the one line of ours that says why."""
    try:
        return make(), ""
    except AlkitError as error:
        line = str(error)
    assert line.strip()
    assert line.isprintable(), "one line, and nothing that a terminal obeys"
    return None, line


@pytest.fixture(autouse=True, scope="module")
def _unflushed() -> Iterator[None]:
    """These tests write thousands of files and lose no power in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def here(tmp_path: Path) -> Callable[[str], Path]:
    """A folder of its own for each example: hypothesis runs many in one test."""
    return lambda name: Path(tempfile.mkdtemp(dir=tmp_path)) / name


# --- parameters ------------------------------------------------------------------------------------------------------


@given(st.dictionaries(KEYS | st.text(max_size=6), VALUES, max_size=4))
@example({"self": 1})
@example({"budget": 10**5000})
@example({"threads": 10**60})
def test_parameters_are_kept_as_given_or_refused_in_one_line(parameters: dict[str, Any]) -> None:
    made, _ = attempt(lambda: Experiment(**parameters))
    if made is None:
        return
    for key, value in parameters.items():
        kept = getattr(made, key)
        numeral = isinstance(value, str) and isinstance(kept, float) and _NUMERAL.fullmatch(value)
        assert kept == (float(value) if numeral else value)
        assert not isinstance(value, bool) or isinstance(kept, bool)
    assert Experiment(**json.loads(json.dumps(made.model_dump(mode="json")))) == made


@given(st.sampled_from(FIELDS), VALUES)
def test_one_wrong_parameter_is_named(key: str, value: Any) -> None:
    made, line = attempt(lambda: Experiment(**{key: value}))
    assert made is not None or key in line.partition(" ")[0]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 20), st.integers(1, 90))
def test_an_experiment_that_its_pool_cannot_give_is_refused_and_no_other(
    initial: int, budget: int, cycles: int, held: int, pool: int
) -> None:
    experiment = Experiment(initial=initial, budget=budget, cycles=cycles, validation_size=held)
    left = [pool - held - initial - bought * budget for bought in range(cycles)]
    possible = pool > held and min(left) >= 0 and budget <= pool - held
    _, line = attempt(lambda: experiment.check_pool(pool, num_classes=2))
    assert possible == (line == "")


# --- study files -----------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "lr", "budget", "methods", "seeds", "variants", "study", "random", "oo4al", ": ", ": ", "\n", "\n", "  ",
     "- ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<", "? ", "| ", "> ", "---\n", "%YAML 1.1\n", "#", "\t", '"', "'",
     "0x", "010", "1:30", "2001-99-99", "~", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ",
     "!!omap ", "!!python/object/apply:os.system ", "!!python/name:os.system ", "!x ", "\ufeff", "\x85", "é"]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join)
FILES = (
    st.binary(max_size=30)
    | (st.text(max_size=30) | TEXTS).map(str.encode)
    | st.dictionaries(KEYS, VALUES, max_size=4).map(lambda content: yaml.safe_dump(content).encode())
)
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@settings(max_examples=200)
@given(FILES)
@example(f"{LAUGHS}title: *a11".encode())
@example(f"{LAUGHS}variants: {{v: {{milestones: *a11}}}}".encode())
@example(f"{MERGED}variants: {{v: {{quirks: *a11}}}}".encode())
@example(b"title: &a [*a]")
@example(b"title: !!timestamp x")
@example(b"title: !!bool maybe")
@example(b"budget: !!int ''")
@example(b"self: 1")
@example(b"variants: {v: {self: 1}}")
@example(b"[" * 5000)
@example(b"data_root: ~no-one/x")
@example(b'pretext_losses: "\\0"\nmethods: [pt4al]')
@example(b"variants: {a: {label: b}}")
@example(b"methods: [random, RANDOM]")
@example(b"variants: {Random: {method: random}, random: {}}")
@example(b"variants: {tables: {}}")
def test_a_study_file_gives_runs_of_its_own_folder_or_one_line(here: Callable[[str], Path], content: bytes) -> None:
    path, out = here("study.yaml"), here("out")
    path.write_bytes(content)
    plan, line = attempt(lambda: planning.make_plan(path, out))
    if plan is None:
        assert str(path) in line
        return
    for run in plan.runs:
        assert Path(os.path.realpath(run.folder)).parts[:-2] == Path(os.path.realpath(out / plan.study.study)).parts
    assert len({str(run.folder).lower() for run in plan.runs}) == len(plan.runs)
    assert not out.exists()


ODD_TEXTS = st.sampled_from(["0100", "1e5", "2001-01-01", "a: b # c", "no", "~x", "1:30", "'", "é\u2028"])
RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "data_root": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | ODD_TEXTS,
        "lr": st.floats(1e-300, 1e300), "alpha": st.integers(1, 10**30), "weight_decay": st.sampled_from(["1e-4", 0.0]),
        "seeds": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=1), "milestones": st.just([1, 2]),
        "class_balance": st.lists(st.floats(1e-9, 1.0), max_size=3), "title": ODD_TEXTS, "keep_models": st.booleans(),
        "quirks": st.just({"warm_start": True}), "threads": st.none() | st.integers(1, 9), "study": st.just("0100"),
    },
)  # fmt: skip


@settings(max_examples=40)
@given(RIGHT, st.sampled_from(sorted(set(METHODS) - {"whole_dataset", "pt4al_cold_start"})))
def test_what_a_grid_writes_for_its_runs_is_what_it_was_asked_for(
    here: Callable[[str], Path], asked: dict[str, Any], method: str
) -> None:
    """Through study.yaml, which Snakemake reads, and run.yaml, which papermill reads with a YAML reader of its own."""
    path = here("study.yaml")
    path.write_text(yaml.safe_dump({"methods": [method], **asked}))
    plan = planning.make_plan(path, path.parent / "out")
    planning.prepare(plan, cores=1)
    (run,) = plan.runs
    again = planning.grid_run(Study.from_yaml(plan.folder / "study.yaml"), run.label, run.seed, plan.folder)
    assert again.experiment == run.experiment
    for written in (read_yaml(run.folder / "run.yaml"), read_yaml_file(str(run.folder / "run.yaml"))):
        assert Experiment(**written) == run.experiment.model_copy(update={"threads": written["threads"]})


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("records") / "plain", {"random": 0.0}, seeds=2, cycles=2)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """`value`, a part of it replaced by anything or removed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 5)):
            return {name: part for name, part in value.items() if name != key}
        return value | {key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    return draw(VALUES)


def read_everything(folder: Path) -> Any:
    """What reads records and signs of life, all of it; the frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", records.RecordWarning)
        frame = records.load_runs(folder)
        records.completeness(folder)
    shown = status_table(folder).splitlines()
    assert len([line for line in shown if line.startswith("random/seed-")]) == 2
    assert all(line.isprintable() for line in shown)
    return frame


@settings(max_examples=120)
@given(st.data())
def test_a_record_of_any_content_is_read_or_left_out(study: Path, data: st.DataObject) -> None:
    file = study / "random" / "seed-0" / "result.json"
    good = file.read_bytes()
    bad = data.draw(
        changed(json.loads(good)).map(lambda value: json.dumps(value).encode())
        | VALUES.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=20)
        | st.integers(0, len(good)).map(lambda end: good[:end])
    )
    try:
        file.write_bytes(bad)
        frame = read_everything(study)
    finally:
        file.write_bytes(good)
    other = frame[frame["seed"] == 1]
    assert len(other) == 2, "the whole record beside it"
    mine = frame[frame["path"] == str(file.parent)]
    assert len(mine) > 0 or [path for path, _ in frame.attrs["problems"]] == [str(file.parent)]
    assert all("\n" not in reason for _, reason in frame.attrs["problems"])
    assert mine["accuracy"].between(0, 1).all()
    assert (mine["labelled"] >= 1).all()
    if len(mine):
        assert mine["cycle"].tolist() == [*range(1, len(mine) + 1)]


DEEP = ('{"a":' * 600) + "1" + "}" * 600


@pytest.mark.parametrize(
    "part",
    ['"params": ' + DEEP, '"pool_size": 1' + "0" * 400, '"cycles": [{"cycle": 1, "labelled": 20, "accuracy": 1' +
     "0" * 400 + "}]", '"seed": 1' + "0" * 5000, '"dataset": "\\ud800"', '"class_names": 3', '"environment": null'],
)  # fmt: skip
def test_a_record_beyond_measure_is_read_or_left_out(study: Path, part: str) -> None:
    file = study / "random" / "seed-0" / "result.json"
    good = file.read_text()
    try:
        file.write_text(good.rstrip().removesuffix("}") + f", {part}}}")
        read_everything(study)
    finally:
        file.write_text(good)


SIGNS = {"state": "training", "cycle": 1, "cycles": 2, "epoch": 3, "epochs": 60, "accuracy": 0.5, "updated": 1.0,
         "pid": 1, "host": "h"}  # fmt: skip


@given(changed(SIGNS) | VALUES, changed({"cell": "7, kit-run", "error": "x", "time": 2.0}) | st.none())
@example(SIGNS | {"pid": 10**30, "host": os.uname().nodename}, None)
@example(SIGNS | {"updated": float("nan")}, {"error": "a\nb\x1b[31m", "time": float("inf")})
def test_signs_of_life_of_any_content_are_shown(study: Path, progress: Any, failure: Any) -> None:
    run = study / "random" / "seed-0"
    record = (run / "result.json").read_bytes()
    try:
        (run / "result.json").unlink()
        for name, value in (("progress", progress), ("failure", failure)):
            (run / f"{name}.json").write_text(json.dumps(value))
        read_everything(study)
    finally:
        (run / "result.json").write_bytes(record)
        for name in ("progress", "failure"):
            (run / f"{name}.json").unlink(missing_ok=True)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """`good`, cut short, with some bytes changed, or something else altogether."""
    content = bytearray(good)
    kind = draw(st.sampled_from(["cut", "flip", "flip", "flip", "other"]))
    if kind == "cut":
        return good[: draw(st.integers(0, len(good) - 1))]
    if kind == "other":
        return draw(st.binary(max_size=40))
    for _ in range(draw(st.integers(1, 3))):
        # the ends hold what says how the rest is to be read
        place = draw(st.integers(0, len(good) - 1) | st.integers(0, 200) | st.integers(1, 300).map(lambda n: -n))
        content[place] ^= draw(st.integers(1, 255))
    assume(content != good)
    return bytes(content)


@settings(max_examples=250)
@given(st.data())
def test_a_damaged_npz_gives_its_arrays_or_one_line(here: Callable[[str], Path], data: st.DataObject) -> None:
    path = here("queries.npz")
    arrays = {"query_1": np.arange(5), "query_2": np.arange(7)[::-1].copy()}
    np.savez(path, **arrays)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    read, _ = attempt(lambda: records.read_queries(path.parent))
    for cycle, indices in (read or {}).items():
        assert np.array_equal(indices, arrays[f"query_{cycle}"])


# --- checkpoints -----------------------------------------------------------------------------------------------------


def load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_checkpoint(path)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(here: Callable[[str], Path], data: st.DataObject) -> None:
    path = here("checkpoint.pt")
    for number in (1, 2):
        save_checkpoint(path, {"number": number, "tensor": torch.full((3,), float(number))})
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    spoilt = data.draw(st.booleans())
    if spoilt:
        previous(path).write_bytes(data.draw(damaged(previous(path).read_bytes())))
    state = load(path)
    assert (state is None) == spoilt
    assert spoilt or (state["number"] == 1 and state["tensor"].tolist() == [1.0, 1.0, 1.0])


@given(st.binary(max_size=60) | VALUES.map(pickle.dumps))
def test_a_checkpoint_of_another_maker_is_none(here: Callable[[str], Path], payload: bytes) -> None:
    """Its checksum holds, so nothing but its content can tell."""
    path = here("checkpoint.pt")
    with_checksum(path, payload)
    assert load(path) is None or isinstance(load(path), dict)


def with_checksum(path: Path, payload: bytes) -> None:
    import hashlib

    path.write_bytes(b"alkit-checkpoint-1 " + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


class Touch:
    """Unpickled by a careless reader, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_nothing_that_is_read_runs_what_it_holds(tmp_path: Path) -> None:
    evil, trace = Touch(tmp_path / "trace"), tmp_path / "trace"
    with_checksum(tmp_path / "checkpoint.pt", pickle.dumps({"params": {}, "state": evil}))
    assert load(tmp_path / "checkpoint.pt") is None
    torch.save({"params": {}, "state": evil}, tmp_path / "plain.pt")
    with_checksum(tmp_path / "checkpoint.pt", (tmp_path / "plain.pt").read_bytes())
    assert load(tmp_path / "checkpoint.pt") is None
    np.savez(tmp_path / "queries.npz", query_1=np.array([evil], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="plain arrays"):
        records.read_queries(tmp_path)
    (tmp_path / "study.yaml").write_text(f"title: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(ConfigError, match="does not parse"):
        Study.from_yaml(tmp_path / "study.yaml")
    assert not trace.exists()
    pickle.loads(pickle.dumps(copy.copy(evil)))
    assert trace.exists(), "the traps would have worked"

"""The command line: every mistake is one line and status 2 with nothing written; the lists say what there is."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from synthetic_study import write_study

from alkit import quirks
from alkit.cli import main
from alkit.data import DATASETS
from alkit.methods import METHODS
from alkit.quirks import QUIRKS

ROOT = Path(__file__).parent.parent
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask("run", "x.yaml")`: the command, given in an empty folder; its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with what files hold."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def written(folder: Path, **content: object) -> str:
    (folder / "study.yaml").write_text(json.dumps({"methods": ["random"], **TINY, **content}))
    return "study.yaml"


# --- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[dict[str, object] | str, str]] = {
    "an unknown key": ({"budgett": 3}, "budgett: unknown parameter; did you mean 'budget'?"),
    "text for a number": ({"epochs": "ten"}, "epochs: expected a valid integer, not 'ten'"),
    "a negative budget": ({"budget": -5}, "budget: expected greater than or equal to 1, not -5"),
    "an unknown method": ({"methods": ["random", "oo4all"]}, "method: no method 'oo4all'; did you mean 'oo4al'?"),
    "an unknown data set": ({"dataset": "digit"}, "dataset: no data set 'digit'; did you mean 'digits'?"),
    "a budget larger than the pool": ({"budget": 300}, "budget: 300 is larger than the pool of 200 images"),
    "more labels than images": ({"budget": 90, "cycles": 4}, "cycles: 4 cycles need 290 labels"),
    "a class missing from a balanced first set": (
        {"initial": 9, "initial_balanced": True},
        "initial: 9 images leave a class missing; initial_balanced needs at least one of each of 10 classes",
    ),
    "a file that is no YAML": ("budget: [1\n", "does not parse at line 2, column 1: expected ',' or ']'"),
    "a list": ("- random\n", "expected parameters as 'key: value' lines"),
    "a name that leaves the study": ({"study": "../x"}, "study: expected letters, digits and _ . + -"),
    "a device that is none": ({"device": "gpu"}, "device: expected auto, cpu, cuda or cuda:NUMBER, not 'gpu'"),
    "a label that leaves the study": ({"variants": {"../../x": {"method": "random"}}}, "variants.../../x"),
    "a label that a shell obeys": ({"variants": {"$(touch x)": {"method": "random"}}}, "variants.$(touch x)"),
    "a label with a line end": ({"variants": {"a\nb": {"method": "random"}}}, "variants.a\\nb"),
    "a label that is not its own": (
        {"variants": {"a": {"label": "../../x"}}},
        "label: expected letters, digits and _ . + -",
    ),
    "a folder that every study has": ({"variants": {"tables": {"method": "random"}}}, "variants: 'tables' is the name"),
    "labels alike but for case": ({"variants": {"Random": {"method": "random"}}}, "methods: 'random' is named twice"),
    "a seed that is none": ({"seeds": [-1]}, "seeds.0: expected greater than or equal to 0, not -1"),
    "pretext losses that are not there": (
        {"methods": ["pt4al"], "pretext_losses": "none.npz"},
        "none.npz: no such file",
    ),
    "code": ("title: !!python/object/apply:os.mkdir [trace]\n", "does not parse at line 1, column 8"),
}


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry-run"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_study_file_is_one_line_and_nothing_is_written(
    ask: Ask, tmp_path: Path, mistake: str, dry: bool
) -> None:
    content, line = MISTAKES[mistake]
    if isinstance(content, str):
        (tmp_path / "study.yaml").write_text(content)
    else:
        written(tmp_path, **content)
    before = tree(tmp_path)
    status, out, err = ask("run", "study.yaml", *(["--dry-run"] if dry else []))
    assert (status, out) == (2, "")
    assert err.startswith("alkit: study.yaml: ")
    assert line in err
    assert err.count("\n") == 1, err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry-run"])
@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_a_place_that_cannot_be_written_is_one_line(ask: Ask, tmp_path: Path, out: str, dry: bool) -> None:
    written(tmp_path)
    (tmp_path / "taken").write_text("a file")
    status, said, err = ask("run", "study.yaml", "--out", out, *(["--dry-run"] if dry else []))
    assert (status, said) == (2, "")
    assert err.endswith("cannot be written (Not a directory)\n")
    assert err.count("\n") == 1
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "none.yaml"], "alkit: none.yaml: no such file"),
        (["run", "."], "alkit: .: a folder, not a file"),
        (["run"], "alkit run: the following arguments are required: STUDY.yaml"),
        (["run", "study.yaml", "--cores", "0"], "--cores: expected a whole number from 1, not '0'"),
        (["run", "study.yaml", "--cores", "two"], "--cores: expected a whole number from 1, not 'two'"),
        (["run", "study.yaml", "--methods", "margn"], "methods: the study has no 'margn'; did you mean 'margin'?"),
        (["run", "study.yaml", "--methods", ","], "--methods: expected names with commas between them"),
        (["run", "study.yaml", "--methods", "random,random"], "methods: each method once"),
        (["run", "study.yaml", "--methods", "../x"], "methods: the study has no '../x'"),
        (["run", "study.yaml", "--seeds", "a"], "--seeds: expected seeds as 0,1,2 or 0-9, not 'a'"),
        (["run", "study.yaml", "--seeds", "5-3"], "--seeds: expected seeds as 0,1,2 or 0-9, not '5-3'"),
        (["run", "study.yaml", "--seeds", "-1"], "--seeds: expected seeds as 0,1,2 or 0-9, not '-1'"),
        (["run", "study.yaml", "--seeds", "0-999999999"], "--seeds: '0-999999999' is too many seeds"),
        (["run", "study.yaml", "--seeds", "1,1"], "seeds: each seed once"),
        (["run", "study.yaml", "--rerun", "oo4al"], "rerun: 'oo4al' is not among the runs"),
        (["run", "study.yaml", "--out", "new/place", "--rerun", "rndom"], "did you mean 'random'?"),
        (["run", "study.yaml", "--out", "study.yaml"], "study.yaml/study: cannot be written (Not a directory)"),
        (["run", "study.yaml", "--profile", "nowhere"], "profile: nowhere: no config.yaml in it"),
        (["run", "study.yaml", "--bugdet", "3"], "alkit: unrecognized arguments: --bugdet 3"),
        (["status", "nowhere"], "alkit: nowhere: no such folder"),
        (["status", "empty"], "alkit: empty: no runs in it; expected a study's folder"),
        (["summary", "nowhere"], "alkit: nowhere: no such folder"),
        (["quirks", "warmstart"], "quirks: no quirk 'warmstart'; did you mean 'warm_start'?"),
        (["evaluate", "none*.pth", "--dataset", "digits"], "none*.pth"),
        (["frob"], "invalid choice: 'frob'"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_command_is_one_line_and_nothing_is_written(
    ask: Ask, tmp_path: Path, arguments: list[str], line: str
) -> None:
    written(tmp_path)
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    status, out, err = ask(*arguments)
    assert (status, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1, err
    assert tree(tmp_path) == before


def test_the_program_itself_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("budgett: 3\n")
    done = subprocess.run(
        [sys.executable, "-m", "alkit", "run", "bad.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "alkit: bad.yaml: budgett: unknown parameter; did you mean 'budget'?\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_bad_parameter_given_to_papermill_by_hand_is_refused_by_the_notebook(tmp_path: Path) -> None:
    notebook = ROOT / "notebooks" / "methods" / "oo4al.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), "x.ipynb", "-p", "budgett", "3", "-p", "out_dir", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ConfigError: budgett: unknown parameter; did you mean 'budget'?" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.ipynb"], "no run was begun"


# --- what would be run -----------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_run_and_writes_nothing(ask: Ask, tmp_path: Path) -> None:
    written(tmp_path, methods=["random", "margin"], seeds=[0, 1])
    before = tree(tmp_path)
    status, out, err = ask("run", "study.yaml", "--dry-run")
    assert (status, err) == (0, "")
    assert [line.split(None, 2)[2] for line in out.splitlines()[:4]] == [
        "random, seed 0", "random, seed 1", "margin, seed 0", "margin, seed 1",
    ]  # fmt: skip
    assert out.splitlines()[4] == f"4 of 4 runs to do, in {tmp_path / 'outputs' / 'study'}"
    assert tree(tmp_path) == before


def test_methods_and_seeds_choose_a_part_or_add_to_the_study(ask: Ask, tmp_path: Path) -> None:
    written(tmp_path, methods=["random", "margin"], seeds=[0, 1])

    def runs(*arguments: str) -> list[str]:
        status, out, _ = ask("run", "study.yaml", "--dry-run", *arguments)
        assert status == 0
        return [line.removeprefix("to run").strip() for line in out.splitlines() if line.startswith("to run")]

    assert runs("--methods", "margin") == ["margin, seed 0", "margin, seed 1"]
    assert runs("--seeds", "1, 4-6", "--methods", "oo4al") == [f"oo4al, seed {seed}" for seed in (1, 4, 5, 6)]
    assert runs("--seeds", "7") == ["random, seed 7", "margin, seed 7"]


# --- what there is ---------------------------------------------------------------------------------------------------


def test_methods_are_listed_with_all_that_makes_them_in_120_columns(ask: Ask) -> None:
    status, out, _ = ask("methods")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["method", "objective", "strategy", "needs", "paper"]
    assert max(map(len, lines)) <= 120
    assert len(lines) == 2 + 2 * len(METHODS)
    for method, first, second in zip(METHODS.values(), lines[2::2], lines[3::2], strict=True):
        assert first.split()[:3] == [method.id, method.objective, method.strategy]
        assert ", ".join(method.needs) in first
        assert first.endswith(method.paper)
        assert second == f"    {method.summary}"


def test_data_sets_are_listed_in_120_columns(ask: Ask) -> None:
    status, out, _ = ask("datasets")
    lines = out.splitlines()
    assert status == 0
    assert max(map(len, lines)) <= 120
    assert [line.split()[0] for line in lines[2:] if not line.startswith(" ")] == list(DATASETS)
    digits = next(line for line in lines if line.startswith("digits"))
    assert digits.split()[1:4] == ["1,437", "360", "10"]


def test_quirks_are_listed_with_what_they_were_measured_to_change(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = tmp_path / "effects.csv"
    monkeypatch.setattr(quirks.measured_effects, "__defaults__", (effects,))
    status, out, _ = ask("quirks")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 120
    register = out.split("\n\n")[0].splitlines()[2:]
    assert [line.split()[0] for line in register if not line.startswith(" ")] == list(QUIRKS)
    assert "points" not in out
    assert "measured    not yet" in ask("quirks", "warm_start")[1]
    with effects.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(
            ["quirk", "study", "dataset", "method", "measure", "seeds", "difference", "low", "high", "labels"]
        )
        rows.writerow(["warm_start", "quirks", "digits", "oo4al", "accuracy", 5, -0.012, -0.02, -0.004, "80 / 80"])
        rows.writerow(["warm_start", "quirks", "digits", "oo4al", "ece", 5, 0.03, "nan", "nan", "80 / 80"])
    said = "−1.2 points (−2.0 to −0.4): oo4al on digits, 5 seeds"
    assert f"applies to {QUIRKS['warm_start'].applies_to} accuracy {said} lr_step_first" in " ".join(
        ask("quirks")[1].split()
    )
    one = ask("quirks", "warm_start")[1]
    assert f"measured    accuracy {said}" in one
    assert "measured    ece +3.0 points: oo4al on digits, 5 seeds" in one
    assert QUIRKS["warm_start"].corrected in one


def test_doctor_looks_at_the_machine(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = ask("doctor")
    assert status == 0, out
    assert [line.split()[1] for line in out.splitlines()] == [
        "python", "packages", "device", "bfloat16", "disk", "cache", "kernel", "notebooks", "code",
    ]  # fmt: skip
    assert f"{len(METHODS)} methods" in out
    monkeypatch.setattr("alkit.grid.planning.NOTEBOOKS", Path("nowhere"))
    status, out, _ = ask("doctor")
    assert status == 1
    assert [line.split()[1] for line in out.splitlines() if line.startswith("!!")] == ["notebooks"]


# --- what it imports -------------------------------------------------------------------------------------------------

HEAVY = {"torch", "pandas", "matplotlib", "sklearn", "scipy", "seaborn", "papermill", "IPython", "snakemake"}


def imported(folder: Path, *codes: str) -> list[set[str]]:
    """The packages in `sys.modules` after each of these, run one after the other in a process of its own."""
    codes = [f"{code}\nprint('>', *{{name.partition('.')[0] for name in sys.modules}})" for code in codes]
    done = subprocess.run([sys.executable, "-c", "\n".join(["import sys", *codes])], cwd=folder, capture_output=True,
                          text=True, check=True)  # fmt: skip
    return [set(line[1:].split()) for line in done.stdout.splitlines() if line.startswith("> ")]


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["status", "plain"], ["methods"], ["quirks"], ["run", "bad.yaml"]],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_arithmetic_imports_none(command: list[str], tmp_path: Path) -> None:
    write_study(tmp_path / "plain", {"random": 0.0}, seeds=1, cycles=1, arrays=False)
    (tmp_path / "bad.yaml").write_text("budgett: 3\n")
    code = f"from alkit.cli import main\ntry: main({command!r})\nexcept SystemExit: pass"
    assert not imported(tmp_path, code)[-1] & HEAVY


def test_importing_alkit_imports_nothing_else_a_learner_no_plots_and_a_runs_own_plots_no_scipy(tmp_path: Path) -> None:
    codes = (
        "import alkit",
        "from alkit import ActiveLearner, Experiment, load_dataset",
        "from alkit import notebook, plots",
    )
    kit, learner, own_plots = imported(tmp_path, *codes)
    others = kit - set(sys.stdlib_module_names) - {"alkit", "sitecustomize"}
    assert {name for name in others if not name.startswith("_")} == set()
    assert learner & HEAVY == {"torch"}
    assert own_plots & HEAVY == {"torch", "pandas", "matplotlib"}


def test_what_starts_the_summarys_notebook_leaves_the_arithmetic_to_it(tmp_path: Path) -> None:
    code = (
        "from alkit.analysis.summary import build\nfrom alkit.grid.execute import import_papermill\nimport_papermill()"
    )
    (found,) = imported(tmp_path, code)
    assert found & HEAVY <= {"papermill", "IPython"}
    assert "lark" not in found, "a second of grammars, for checks of addresses"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m alkit methods | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONUNBUFFERED": "1"})  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""

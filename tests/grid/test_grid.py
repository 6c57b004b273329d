"""A study's grid: which runs it has, the folder they run in, and the runs themselves through Snakemake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from conftest import TINY
from synthetic_study import write_run

from alkit import Experiment, Study
from alkit.config.study_yaml import read_yaml
from alkit.data import Facts, facts_of
from alkit.errors import CheckpointError, ConfigError
from alkit.grid import planning, runner, study_check
from alkit.grid.plan_check import check_plan
from alkit.grid.status import status_table
from alkit.records import load_runs

MakePlan = Callable[..., planning.Plan]


@pytest.fixture
def plan(tmp_path: Path) -> MakePlan:
    """`plan(methods=["margin"], cycles=3, …)`: the plan of a study file with these keys, in tmp_path/out."""

    def make(only: list[str] | None = None, seeds_only: list[int] | None = None, **content: Any) -> planning.Plan:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"study": "s", "methods": ["random"], **TINY, **content}))
        return planning.make_plan(file, tmp_path / "out", only, seeds_only)

    return make


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finish(run: planning.GridRun) -> None:
    """A record as the run would leave it."""
    write_run(run.folder, run.experiment, arrays=False)


# --- which runs there are --------------------------------------------------------------------------------------------


def test_a_plan_has_every_label_and_seed_with_its_own_parameters(plan: MakePlan, tmp_path: Path) -> None:
    made = plan(methods=["random", "margin"], variants={"warm": {"method": "random", "quirks": {"warm_start": True}}},
                seeds=[0, 3])  # fmt: skip
    assert [run.name for run in made.runs] == [
        f"{label}, seed {seed}" for label in ("random", "margin", "warm") for seed in (0, 3)
    ]
    assert made.runs[3].folder == tmp_path / "out" / "s" / "margin" / "seed-3"
    warm = made.runs[5].experiment
    assert (warm.method, warm.name, warm.seed, warm.quirk("warm_start")) == ("random", "warm", 3, True)
    assert made.runs[1].epochs == TINY["cycles"] * TINY["epochs"]
    assert not (tmp_path / "out").exists(), "a plan writes nothing"


def test_a_study_without_methods_is_its_own_method(plan: MakePlan) -> None:
    assert [run.name for run in plan(methods=[], method="entropy", seed=4).runs] == ["entropy, seed 4"]


def test_whole_study_spells_out_what_was_asked_for(plan: MakePlan) -> None:
    study = Study(study="s", methods=["random"], parameters={"seed": 5})
    whole = planning.whole_study(study, ["margin"], [])
    assert (whole.methods, whole.seeds) == (["random", "margin"], [5])
    assert planning.whole_study(study, [], [6, 7]).seeds == [5, 6, 7]
    assert planning.whole_study(study, ["random"], [6]).seeds == [5], "a part does not make the study larger"


def test_runs_that_share_a_pretext_task_share_a_job(plan: MakePlan) -> None:
    made = plan(
        methods=["pt4al", "random"], variants={"text": {"method": "pt4al", "pt4al_order": "text"}}, seeds=[0, 1]
    )
    assert len(made.pretext_jobs) == 2, "one a seed"
    assert {run.label for run in made.runs if run.pretext is None} == {"random"}
    planning.prepare(made, cores=2)
    assert {path.stem for path in (made.folder / "pretext").glob("*.yaml")} == set(made.pretext_jobs)


def test_only_the_kits_own_notebooks_can_be_named(plan: MakePlan) -> None:
    for run in plan(methods=["random", "oo4al"]).runs:
        assert planning.notebook_of(run.experiment.method) == planning.NOTEBOOKS / "methods" / f"{run.label}.ipynb"
    with pytest.raises(KeyError):
        planning.notebook_of("../../elsewhere")


def test_the_pool_is_looked_at_once_for_runs_that_share_it(plan: MakePlan) -> None:
    asked = []

    def facts(experiment: Experiment) -> Facts:
        asked.append(experiment.pool_size)
        return facts_of(experiment)

    check_plan(plan(methods=["random", "margin"], seeds=[0, 1]), facts=facts)
    assert asked == [200]
    with pytest.raises(ConfigError, match=r"study\.yaml: more: budget: 300 is larger than the pool of 200 images"):
        check_plan(plan(variants={"more": {"method": "random", "budget": 300}}))


# --- the study's folder ----------------------------------------------------------------------------------------------


def test_what_is_prepared_is_all_that_snakemake_and_papermill_need(plan: MakePlan) -> None:
    made = plan(methods=["random"], variants={"long": {"method": "margin", "cycles": 3}}, seeds=[0, 1], only=["long"])
    planning.prepare(made, cores=2)
    assert set(files(made.folder)) == {"study.yaml", "long/seed-0/run.yaml", "long/seed-1/run.yaml"}
    study = Study.from_yaml(made.folder / "study.yaml")
    assert study.labels == ["random", "long"], "the study is whole, whatever part of it was asked for"
    assert study.experiment("long", seed=1) == made.runs[1].experiment
    assert Experiment(**read_yaml(made.folder / "long" / "seed-1" / "run.yaml")) == made.runs[1].experiment


def test_preparing_again_writes_nothing(plan: MakePlan) -> None:
    made = plan(seeds=[0, 1])
    planning.prepare(made, cores=2)
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    planning.prepare(plan(seeds=[0, 1]), cores=2)
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


@pytest.mark.parametrize(("cores", "share"), [(1, 1), (2, 1), (8, 2), (9, 2)])
def test_cores_are_shared_out_among_all_runs_of_the_study(plan: MakePlan, cores: int, share: int) -> None:
    made = plan(methods=["random", "margin"], seeds=[0, 1], threads=None, only=["random"])
    planning.prepare(made, cores)
    assert [read_yaml(run.folder / "run.yaml")["threads"] for run in made.runs] == [share, share]
    fixed = plan(methods=["random", "margin"], seeds=[0, 1], threads=3, study="t")
    planning.prepare(fixed, cores)
    assert read_yaml(fixed.runs[0].folder / "run.yaml")["threads"] == 3


def test_a_run_that_was_begun_keeps_its_threads(plan: MakePlan) -> None:
    made = plan(threads=None)
    planning.prepare(made, cores=2)
    (made.runs[0].folder / "checkpoint.pt").write_bytes(b"")
    planning.prepare(plan(threads=None), cores=8)
    assert read_yaml(made.runs[0].folder / "run.yaml")["threads"] == 2, "another number can change the last bits"


@pytest.mark.parametrize("by", ["record", "checkpoint"])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 0.1}, "holds a run with lr = 0.05, not 0.1"),
        ({"cycles": 3}, "holds a run with cycles = 2, not 3"),
        ({"quirks": {"warm_start": True}}, "holds a run with quirks = {}, not {'warm_start': True}"),
    ],
)
def test_a_changed_parameter_is_refused_by_name_before_anything_is_written(
    plan: MakePlan, by: str, changed: dict[str, Any], said: str
) -> None:
    made = plan()
    planning.prepare(made, cores=1)
    if by == "record":
        finish(made.runs[0])
    else:
        (made.runs[0].folder / "checkpoint.pt").write_bytes(b"")
    before = files(made.folder)
    with pytest.raises(CheckpointError) as refused:
        planning.prepare(plan(**changed), cores=1)
    assert said in str(refused.value)
    assert "--rerun random" in str(refused.value)
    assert files(made.folder) == before


def test_what_changes_no_number_may_change(plan: MakePlan) -> None:
    made = plan()
    finish(made.runs[0])
    planning.prepare(plan(checkpoint_seconds=5, keep_models=True, eval_batch_size=7), cores=1)
    assert made.runs[0].finished


def test_rerun_begins_a_labels_runs_anew_and_leaves_the_others(plan: MakePlan) -> None:
    made = plan(methods=["random", "margin"], seeds=[0, 1])
    for run in made.runs:
        finish(run)
    again = plan(methods=["random", "margin"], seeds=[0, 1], variants={})
    planning.prepare(again, cores=1, rerun=["margin"])
    assert [run.name for run in again.runs if run.finished] == ["random, seed 0", "random, seed 1"]
    with pytest.raises(ConfigError, match="rerun: 'margn' is not among the runs; did you mean 'margin'"):
        planning.prepare(again, cores=1, rerun=["margn"])


def test_a_record_that_is_none_is_not_written_over(plan: MakePlan) -> None:
    made = plan()
    made.runs[0].folder.mkdir(parents=True)
    (made.runs[0].folder / "result.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"result\.json: not a record of alkit; move it away or"):
        planning.prepare(made, cores=1)
    assert (made.runs[0].folder / "result.json").read_text() == "{}"


def test_a_folder_is_held_by_one_command_and_let_go_of(tmp_path: Path) -> None:
    with (
        planning.hold(tmp_path / "s"),
        pytest.raises(CheckpointError, match=f"in use by alkit run, process {os.getpid()} on"),
        planning.hold(tmp_path / "s"),
    ):
        pass
    with planning.hold(tmp_path / "s"):
        pass


# --- what is started and shown ---------------------------------------------------------------------------------------


def test_snakemake_is_asked_for_the_runs_and_for_a_summary_of_a_whole_study(plan: MakePlan) -> None:
    def config(made: planning.Plan) -> dict[str, str]:
        command = runner.snakemake_command(made, 2, None, True, planning.NOTEBOOKS)
        assert command[command.index("--cores") + 1] == "2"
        return dict(pair.split("=", 1) for pair in command[command.index("--config") + 1 :])

    whole = config(plan(methods=["random", "margin"], seeds=[0, 1]))
    assert (whole["methods"], whole["seeds"], whole["summary"]) == ('["random", "margin"]', "[0, 1]", "True")
    part = config(plan(methods=["random", "margin"], seeds=[0, 1], only=["margin"]))
    assert (part["methods"], part["summary"]) == ('["margin"]', "False")


@pytest.mark.parametrize("change", [{"title": "Another title"}, {"methods": ["margin"]}])
def test_a_summary_is_made_again_when_its_study_has_changed_or_a_record_is_newer(
    plan: MakePlan, change: dict[str, Any]
) -> None:
    made = plan(methods=["margin", "random"], title="A title")
    planning.prepare(made, 1)
    for run in made.runs:
        finish(run)
    page = made.folder / "summary.html"
    page.write_text("as of now")
    assert runner._up_to_date(page, made, runner._version_of(page))
    changed = plan(**{"methods": ["margin", "random"], "title": "A title", **change})
    planning.prepare(changed, 1)
    assert not runner._up_to_date(page, changed, runner._version_of(page))
    page.write_text("as of now")
    finish(changed.runs[0])
    assert not runner._up_to_date(page, changed, runner._version_of(page))


def test_a_profile_is_another_machine_for_the_same_workflow(plan: MakePlan) -> None:
    command = runner.snakemake_command(plan(), 2, "workflow/profiles/slurm", True, planning.NOTEBOOKS)
    assert command[command.index("--profile") + 1] == str(Path("workflow/profiles/slurm").absolute())
    assert "--cores" not in command
    assert command[command.index("--snakefile") + 1] == str(planning.SNAKEFILE)


class Terminal:
    """Keeps what a person would be shown."""

    def __init__(self, tty: bool) -> None:
        self.text, self.tty = "", tty

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize("tty", [True, False], ids=["terminal", "log"])
def test_progress_is_one_line_that_counts_the_epochs_of_all_runs(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tty: bool
) -> None:
    made = plan(methods=["random", "margin"], cycles=3, epochs=4)
    finish(made.runs[0])
    made.runs[1].folder.mkdir(parents=True)
    (made.runs[1].folder / "progress.json").write_text(json.dumps({"cycle": 2, "epoch": 3, "epochs": 4, "cycles": 3}))
    terminal = Terminal(tty)
    monkeypatch.setattr(sys, "stderr", terminal)
    runner.watch(made, subprocess.Popen(["sleep", "0.7"]))
    assert "19/24" in terminal.text, "12 of the finished run, 4 + 3 of the other"
    assert "1/2 runs" in terminal.text
    assert terminal.text.count("\n") == 1
    assert terminal.text.count("\r") > 1 if tty else terminal.text.count("\r") <= 3


def test_a_table_of_what_is_finished(plan: MakePlan) -> None:
    made = plan(methods=["random", "margin"], seeds=[0, 1])
    for run in made.runs[:2]:
        finish(run)
    head, _, random, margin = (line.split() for line in runner.result_table(made).splitlines())
    assert head == ["method", "seeds", "labels", "accuracy", "%", "sd", "ECE"]
    frame = load_runs(made.folder)
    final = 100 * frame[frame["cycle"] == 2]["accuracy"]
    assert random == ["random", "2", "30", f"{final.mean():.2f}", f"{final.std():.2f}", random[5]]
    assert margin == ["margin", "0"]


# --- through Snakemake -----------------------------------------------------------------------------------------------


def made_up_notebook(path: Path, *cells: str) -> None:
    """A notebook with these cells after its parameters."""
    codes = [nbformat.v4.new_code_cell("out_dir = '.'", metadata={"tags": ["parameters"]}, id="given")]
    codes += [nbformat.v4.new_code_cell(code, id=f"cell-{n}") for n, code in enumerate(cells, 1)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=codes, metadata=kernel), path)


TRIED = "from pathlib import Path\nprint('trying', file=(Path(out_dir) / 'tries').open('a'))"
RECORD = """import json
cycle = {"cycle": 1, "labelled": 20, "accuracy": 0.5, "ece": 0.1}
(Path(out_dir) / "result.json").write_text(json.dumps({"params": {}, "cycles": [cycle]}))"""


def tries(run: planning.GridRun) -> int:
    return len((run.folder / "tries").read_text().splitlines())


def test_a_failed_run_is_tried_again_then_reported_and_the_others_are_finished(
    plan: MakePlan, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebooks = tmp_path / "notebooks"
    made_up_notebook(notebooks / "methods" / "random.ipynb", TRIED, RECORD)
    made_up_notebook(notebooks / "methods" / "margin.ipynb", TRIED, "print('so far so good')",
                     "raise ValueError('planted\\nin two lines')")  # fmt: skip
    made = plan(methods=["margin", "random"])
    assert runner.run_study(made, cores=2, summary=False, notebooks=notebooks) == 1
    bad, good = made.runs
    said = capfd.readouterr()
    assert (tries(bad), tries(good)) == (2, 1)
    assert (bad.finished, good.finished) == (False, True)
    lines = said.err.splitlines()
    assert "alkit: 1 of 2 runs failed:" in lines
    assert "  margin, seed 0 in cell 4, cell-3: ValueError: planted in two lines" in lines
    assert any(line.startswith("    | ") and "raise ValueError(" in line for line in lines), "the log's last lines"
    assert f"    log: {bad.folder / 'run.log'}" in lines
    assert "random" not in said.err
    assert said.out.splitlines()[3].split()[:4] == ["random", "1", "20", "50.00"]
    state = status_table(made.folder)
    assert "failed" in next(line for line in state.splitlines() if line.startswith("margin/seed-0"))
    assert "cell 4, cell-3: ValueError: planted" in state

    # what failed is run again, what is finished is not; the parameters are the made-up records' own
    monkeypatch.setattr(study_check, "_refuse_changed", lambda *_: None)
    made_up_notebook(notebooks / "methods" / "margin.ipynb", TRIED, RECORD)
    before = (good.folder / "result.json").stat().st_mtime_ns
    assert runner.run_study(made, cores=2, summary=False, notebooks=notebooks) == 0
    assert (tries(bad), tries(good)) == (3, 1)
    assert (good.folder / "result.json").stat().st_mtime_ns == before
    assert "failed" not in capfd.readouterr().err

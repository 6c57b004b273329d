"""The cycle: its invariants, its record, and that nothing is lost on the way."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alkit import ActiveLearner, Experiment
from alkit.data.first import interleave_classes
from alkit.errors import CheckpointError, ConfigError
from alkit.storage.checkpoint import load_checkpoint, save_checkpoint

Make = Callable[..., Experiment]
FILES = ("queries.npz", "predictions.npz")


def without_times(path: Path) -> dict[str, Any]:
    result = json.loads((path / "result.json").read_text())
    for key in ("started", "finished", "environment", "code"):
        del result[key]
    for cycle in result["cycles"]:
        del cycle["seconds"]
    return result


def run(experiment: Experiment, folder: Path) -> list[dict[str, Any]]:
    return list(ActiveLearner(experiment, folder))


class Killed(Exception):  # noqa: N818
    """Stands for a kill: raised from within the progress report."""


def killed_after(reports: int) -> Callable[[dict[str, Any]], None]:
    left = iter(range(reports))

    def report(_: dict[str, Any]) -> None:
        if next(left, None) is None:
            raise Killed

    return report


def test_a_run_leaves_its_record(tiny: Make, tmp_path: Path) -> None:
    records = run(tiny(method="oo4al", cycles=3), tmp_path)
    assert [r["labelled"] for r in records] == [20, 30, 40]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["cycles"] == records
    assert result["params"]["budget"] == 10
    assert set(result) >= {"schema", "dataset", "method", "seed", "protocol", "environment", "started", "finished"}
    for record in records:
        assert 0 <= record["accuracy"] <= 1
        assert sum(record["class_counts"]) == record["labelled"]
        assert set(record["seconds"]) == {"train", "evaluate", "query"}
    queries = np.load(tmp_path / "queries.npz", allow_pickle=False)
    bought = np.concatenate([queries[f"query_{c}"] for c in (1, 2, 3)])
    assert len(np.unique(bought)) == 40
    predictions = np.load(tmp_path / "predictions.npz", allow_pickle=False)
    assert predictions["correct"].shape == (3, 60)
    np.testing.assert_allclose(predictions["correct"].mean(1), [r["accuracy"] for r in records])
    assert not list(tmp_path.glob("checkpoint*"))


def test_the_same_run_twice_gives_the_same_bytes(tiny: Make, tmp_path: Path) -> None:
    torch.manual_seed(1)
    run(tiny(method="cmam"), tmp_path / "a")
    torch.manual_seed(2)
    torch.rand(5)
    run(tiny(method="cmam"), tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")


@pytest.mark.parametrize("reports", [1, 2, 3, 5, 7, 8])
@pytest.mark.parametrize("quirks", [{}, {"warm_start": True}])
def test_a_run_stopped_anywhere_ends_in_the_same_bytes(
    reports: int, quirks: dict[str, bool], tiny: Make, tmp_path: Path
) -> None:
    experiment = tiny(method="oo4al", epochs=3, checkpoint_seconds=0.0, quirks=quirks)
    run(experiment, tmp_path / "whole")
    with pytest.raises(Killed):
        list(ActiveLearner(experiment, tmp_path / "cut", progress=killed_after(reports)))
    assert not (tmp_path / "cut" / "result.json").exists()
    run(experiment, tmp_path / "cut")
    for name in FILES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "cut")


def test_a_resumed_run_does_not_train_again_what_it_has(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(epochs=3, checkpoint_seconds=0.0)
    with pytest.raises(Killed):
        list(ActiveLearner(experiment, tmp_path, progress=killed_after(2)))
    epochs: list[int] = []
    list(ActiveLearner(experiment, tmp_path, progress=lambda s: epochs.append(s["epoch"])))
    assert epochs[0] == 3  # killed while reporting epoch 3, whose checkpoint is that of epoch 2


def test_a_finished_run_is_read_back_and_not_run_again(tiny: Make, tmp_path: Path) -> None:
    first = run(tiny(), tmp_path)
    reports: list[Any] = []
    assert list(ActiveLearner(tiny(), tmp_path, progress=reports.append)) == first
    assert reports == []


def test_a_folder_with_another_experiment_is_refused_by_key(tiny: Make, tmp_path: Path) -> None:
    run(tiny(), tmp_path)
    with pytest.raises(CheckpointError, match="budget = 10, not 11"):
        run(tiny(budget=11), tmp_path)
    with pytest.raises(Killed):
        list(ActiveLearner(tiny(checkpoint_seconds=0.0), tmp_path / "half", progress=killed_after(3)))
    with pytest.raises(CheckpointError, match="seed = 0, not 1"):
        run(tiny(seed=1), tmp_path / "half")


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"number": 1})
    save_checkpoint(path, {"number": 2})
    assert load_checkpoint(path) == {"number": 2}
    damaged = bytearray(path.read_bytes())
    damaged[-10] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="checksum"):
        assert load_checkpoint(path) == {"number": 1}
    path.write_bytes(path.read_bytes()[:50])
    (tmp_path / "checkpoint.previous.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="checksum"):
        assert load_checkpoint(path) is None


def test_a_state_of_a_later_version_is_refused(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        list(ActiveLearner(tiny(checkpoint_seconds=0.0), tmp_path, progress=killed_after(3)))
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved is not None
    save_checkpoint(tmp_path / "checkpoint.pt", saved | {"state": saved["state"] | {"of_tomorrow": 1}})
    with pytest.raises(CheckpointError, match="of another version of alkit; remove it to begin anew"):
        run(tiny(), tmp_path)


def test_a_record_that_is_no_record_is_named(tiny: Make, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"result\.json: not a record of alkit"):
        run(tiny(), tmp_path)
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"result\.json: not a record of alkit"):
        run(tiny(), tmp_path / "folder")


def test_two_processes_cannot_run_in_one_folder(tiny: Make, tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait(_: dict[str, Any]) -> None:
        entered.set()
        leave.wait(20)

    first = threading.Thread(target=lambda: list(ActiveLearner(tiny(), tmp_path, progress=wait)))
    first.start()
    try:
        assert entered.wait(20)
        with pytest.raises(CheckpointError, match="another process"):
            run(tiny(), tmp_path)
    finally:
        leave.set()
        first.join()


def test_a_balanced_first_set_holds_every_class_equally_often(tiny: Make) -> None:
    record = next(iter(ActiveLearner(tiny(initial_balanced=True))))
    assert record["class_counts"] == [2] * 10


def test_interleaving_keeps_every_prefix_as_balanced_as_can_be() -> None:
    labels = torch.tensor([0] * 10 + [1] * 3)
    order = interleave_classes(torch.randperm(13, generator=torch.Generator().manual_seed(0)), labels, 2)
    assert sorted(order.tolist()) == list(range(13))
    assert torch.bincount(labels[order[:6]]).tolist() == [3, 3]
    assert labels[order[6:]].tolist() == [0] * 7


def test_a_budget_larger_than_the_pool_is_refused_before_training(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget: 201 is larger than the pool of 200 images"):
        ActiveLearner(tiny(budget=201), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_of_the_pool_can_be_bought(tiny: Make) -> None:
    records = list(ActiveLearner(tiny(method="ranked_margin", initial=190, epochs=1)))
    assert records[-1]["labelled"] == 200


def test_the_whole_data_set_is_one_cycle_of_all_labels(tiny: Make) -> None:
    records = list(ActiveLearner(tiny(method="whole_dataset", epochs=1)))
    assert [r["labelled"] for r in records] == [200]


def test_a_temperature_is_fitted_on_images_never_trained_on(tiny: Make) -> None:
    learner = ActiveLearner(tiny(method="temperature_scaling", ts_holdout=0.25, epochs=1))
    records = list(learner)
    train, held = learner._split_labelled()
    assert held is not None
    assert len(held) == 5 + 2
    assert not torch.isin(train, held).any()
    assert torch.equal(torch.cat([train, held]).sort().values, learner.state.labelled.sort().values)
    assert all(record["temperature"] > 0 for record in records)


def test_early_stopping_keeps_the_best_epoch_by_validation_loss(tiny: Make) -> None:
    experiment = tiny(epochs=40, milestones=[39], early_stopping=2, validation_size=30, lr=0.5)
    learner = ActiveLearner(experiment)
    record = next(iter(learner))
    assert record["epochs"] < 40
    assert not torch.isin(learner.state.labelled, learner.validation).any()


def test_warm_start_carries_the_weights_over(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import alkit.learner

    seen: list[dict[str, torch.Tensor]] = []
    original = alkit.learner.Trainer.train_epoch

    def spy(self: Any) -> float:
        seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        loss = original(self)
        seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return loss

    monkeypatch.setattr(alkit.learner.Trainer, "train_epoch", spy)

    def carried(quirks: dict[str, bool]) -> bool:
        seen.clear()
        list(ActiveLearner(tiny(epochs=1, quirks=quirks)))
        end_of_first, start_of_second = seen[1], seen[2]
        return all(torch.equal(end_of_first[k], start_of_second[k]) for k in end_of_first)

    assert carried({"warm_start": True})
    assert not carried({})


@pytest.fixture
def kept(tiny: Make, tmp_path: Path) -> Iterator[Path]:
    run(tiny(keep_models=True), tmp_path)
    return tmp_path


def test_models_are_kept_in_the_papers_layout_when_asked(kept: Path) -> None:
    saved = torch.load(kept / "models" / "active_resnet10_digits_cycle2.pth", weights_only=True)
    assert "layer1.0.conv1.weight" in saved["state_dict_backbone"]

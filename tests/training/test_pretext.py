"""Pretext tasks: a loss an image, from images alone; the file of a run; and the notebook."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_images

from alkit import Experiment, notebook
from alkit.data import ImageSet, facts_of, load_for
from alkit.data.randomness import generator
from alkit.data.registry import DATASETS, DatasetEntry
from alkit.errors import CheckpointError, ConfigError, DataError, TrainingError
from alkit.training.loop import split_batches
from alkit.training.pretext import make_task, pretext_key, read_losses, run_pretext, supervised_losses, with_pretext
from alkit.training.pretext import run as run_module
from alkit.training.pretext.colorization import _split
from alkit.training.pretext.jigsaw import PERMUTATIONS, Jigsaw
from alkit.training.pretext.rotation import Rotation
from alkit.training.pretext.simsiam import view

Make = Callable[..., Experiment]
TASKS = ["rotation", "jigsaw", "colorization", "simsiam"]


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """40 colour images of 8×8 pixels, the data set 'made_up'."""
    images = made_images(40, (3, 8, 8), 4)
    entry = DatasetEntry("made_up", "made up", lambda root, options: (images, images), "these tests")
    monkeypatch.setitem(DATASETS, "made_up", entry)
    return images


def on_colour(tiny: Make, **overrides: Any) -> Experiment:
    return tiny(**({"method": "pt4al", "dataset": "made_up", "pool_size": None, "test_size": None} | overrides))


# --- every task ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_a_task_gives_one_finite_loss_an_image_and_learns(task: str, tiny: Make, colour: ImageSet) -> None:
    trained = make_task(on_colour(tiny, pretext=task, pretext_lr=0.02, pretext_batch_size=8, width=8), colour)
    losses = [trained.train_epoch(epoch) for epoch in range(6)]
    assert losses[-1] < losses[0]
    found, accuracy = trained.score()
    assert found.shape == (40,)
    assert found.dtype == torch.float64
    assert bool(found.isfinite().all())
    assert trained.measured == bool(accuracy.isfinite().all())


@pytest.mark.parametrize("task", TASKS)
def test_a_task_never_sees_a_label(task: str, tiny: Make, colour: ImageSet) -> None:
    scores = []
    for labels in (colour.labels, torch.zeros_like(colour.labels)):
        trained = make_task(on_colour(tiny, pretext=task), replace(colour, labels=labels))
        trained.train_epoch(0)
        scores.append(trained.score()[0])
    assert torch.equal(*scores)


@pytest.mark.parametrize("task", TASKS)
def test_an_image_s_loss_does_not_depend_on_its_batch(task: str, tiny: Make, colour: ImageSet) -> None:
    trained = make_task(on_colour(tiny, pretext=task), colour)
    trained.train_epoch(0)
    together, alone = trained.score()[0], []
    for i in range(5):
        trained.data = colour.select(torch.tensor([i]))
        alone.append(trained.score()[0])
    torch.testing.assert_close(together[:5], torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["rotation", "jigsaw", "simsiam"])
def test_grey_digits_of_8_by_8_work(task: str, tiny: Make, tmp_path: Path) -> None:
    content = run_pretext(tiny(method="pt4al", pretext=task), tmp_path / "pretext.npz")
    assert len(content) == 200
    assert len(set(content.losses.tolist())) > 150


def test_colorization_refuses_grey_images_in_one_line(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^pretext: colorization predicts colours, and 'digits' is grey; expected"):
        run_pretext(tiny(method="pt4al", pretext="colorization"), tmp_path / "pretext.npz")


@pytest.mark.parametrize(
    ("task", "shape", "message"),
    [("rotation", (1, 8, 6), "needs square images, not 8×6"), ("jigsaw", (1, 8, 2), "at least 4×4 pixels, not 8×2")],
)
def test_images_of_a_shape_that_does_not_suit_the_task_are_refused(
    task: str, shape: tuple[int, int, int], message: str, tiny: Make
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(tiny(method="pt4al", pretext=task), made_images(8, shape, 2))


@pytest.mark.parametrize("model", ["resnet18", "mc_dropout_cnn"])
def test_the_pretext_network_is_the_experiment_s_backbone(model: str, tiny: Make, colour: ImageSet) -> None:
    task = make_task(on_colour(tiny, model=model), colour)
    task.train_epoch(0)
    assert torch.equal(task.score()[0], task.score()[0])


def test_a_loss_that_is_not_a_number_ends_the_training_in_one_line(tiny: Make, colour: ImageSet) -> None:
    task = make_task(on_colour(tiny, pretext_lr=1e30, pretext_batch_size=4), colour)
    with pytest.raises(
        TrainingError, match=r"^the loss of the pretext task is not a number in epoch 1, batch .* pretext_lr"
    ):
        task.train_epoch(0)


def test_bfloat16_learns_what_float32_learns(tiny: Make) -> None:
    last = []
    for precision in ("float32", "bfloat16"):
        experiment = tiny(method="pt4al", precision=precision, pretext_batch_size=16, width=8)
        task = make_task(experiment, load_for(experiment)[0])
        last.append([task.train_epoch(epoch) for epoch in range(4)][-1])
    assert last[1] < last[0] + 0.15


# --- each task by its definition -------------------------------------------------------------------------------------


def slow_losses(task: Any, data: ImageSet, views: Callable[[np.ndarray], list[np.ndarray]]) -> list[float]:
    """Image by image and view by view: −log of the probability of the view that it is."""
    task.network.eval()
    result = []
    for image in data.images.numpy():
        losses = []
        for which, seen in enumerate(views(image)):
            batch = data.normalise(torch.from_numpy(seen.copy())[None])
            with torch.no_grad():
                logits = task.network(batch)[0].double().numpy()
            losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[which])
        result.append(float(np.mean(losses)))
    return result


def test_rotation_is_the_mean_cross_entropy_over_four_quarter_turns(tiny: Make, colour: ImageSet) -> None:
    data = colour.select(torch.arange(6))
    task = make_task(on_colour(tiny), data)
    task.train_epoch(0)
    expected = slow_losses(task, data, lambda image: [np.rot90(image, k, (1, 2)) for k in range(4)])
    np.testing.assert_allclose(task.score()[0].numpy(), expected, rtol=1e-4)


def test_rotation_shows_the_four_turns() -> None:
    image = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)[None, None]
    turned = Rotation.__new__(Rotation).views(image)
    assert turned[:, 0, 0].tolist() == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]


def test_the_quirk_rotation_four_passes_makes_a_step_of_four_forward_passes(tiny: Make, colour: ImageSet) -> None:
    """As PT4AL's program does it: net(x0), net(x1), net(x2), net(x3), each with every image once, turned by an angle
    of a shuffled list; the loss is the mean of the four mean cross-entropies."""
    options = {"quirks": {"rotation_four_passes": True}, "pretext_batch_size": 4}
    task, slow = (make_task(on_colour(tiny, **options), colour) for _ in range(2))
    task.train_epoch(0)
    source = generator(0, "pretext", "rotation", 0)
    order = torch.randperm(len(colour), generator=source)
    shuffled = torch.rand(len(colour), 4, generator=source).argsort(1)
    slow.network.train()
    for chosen, turns in zip(split_batches(order, 4), shuffled.split([len(b) for b in split_batches(order, 4)]),
                             strict=True):  # fmt: skip
        losses = []
        for which in range(4):
            turned = [
                torch.rot90(colour.images[i], int(k), (1, 2)) for i, k in zip(chosen, turns[:, which], strict=True)
            ]
            logits = slow.network(slow.normalised(torch.stack(turned)))
            losses.append(torch.nn.functional.cross_entropy(logits, turns[:, which]))
        (sum(losses) / 4).backward()
        slow.optimizer.step()
        slow.optimizer.zero_grad()
    theirs = slow.network.state_dict()
    for name, value in task.network.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    steps = len(split_batches(order, 4))
    tracked = {int(v) for n, v in task.network.state_dict().items() if n.endswith("num_batches_tracked")}
    assert tracked == {4 * steps}, "running statistics move four times a step"


def test_jigsaw_rearranges_quarters_and_leaves_an_odd_row_and_column_out(tiny: Make) -> None:
    image = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5)
    views = Jigsaw.__new__(Jigsaw).views(image)[:, 0, 0]
    a, b, c, d = [[0, 1], [5, 6]], [[2, 3], [7, 8]], [[10, 11], [15, 16]], [[12, 13], [17, 18]]
    for seen, (p, q, r, s) in zip(views, [(a, b, c, d), (b, a, d, c), (c, d, a, b), (d, c, b, a)], strict=True):
        assert seen.tolist() == np.block([[np.array(p), np.array(q)], [np.array(r), np.array(s)]]).tolist()


def test_jigsaw_arrangements_differ_from_each_other_in_every_place() -> None:
    for first in PERMUTATIONS:
        assert sorted(first) == [0, 1, 2, 3]
        for second in PERMUTATIONS:
            assert first == second or all(a != b for a, b in zip(first, second, strict=True))


def test_colorization_sees_brightness_and_predicts_the_colour_of_each_cell(tiny: Make, colour: ImageSet) -> None:
    from PIL import Image

    data = colour.select(torch.arange(4))
    task = make_task(on_colour(tiny, pretext="colorization"), data)
    task.train_epoch(0)
    task.network.eval()
    luma, _ = _split(data.images)
    mean, std = (float(np.dot((0.299, 0.587, 0.114), values)) for values in (data.mean, data.std))
    with torch.no_grad():
        predicted = task.network((luma - mean) / std).view(4, 2, 4, 4).numpy()
    for image, guess, loss in zip(data.images.numpy(), predicted, task.score()[0].tolist(), strict=True):
        ycc = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("YCbCr")).astype(float)
        cells = (ycc[:, :, 1:] - 128).reshape(4, 2, 4, 2, 2).mean((1, 3)).transpose(2, 0, 1) / 255 / 0.1
        assert loss == pytest.approx(float(((guess - cells) ** 2).mean()), rel=0.02)


def test_simsiam_compares_each_prediction_with_the_other_view_s_projection(tiny: Make, colour: ImageSet) -> None:
    task: Any = make_task(on_colour(tiny, pretext="simsiam"), colour)
    task.network.eval()
    images, draws = colour.images[:5], torch.rand(5, 2, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (z1, p1), (z2, p2) = (task.network(task.normalised(view(images, draws[:, which]))) for which in range(2))
        losses = task.losses(images, draws)[0].tolist()
    for row, loss in enumerate(losses):
        both = [
            -float(p[row] @ z[row] / p[row].norm() / z[row].norm()) for p, z in ((p1, z2), (p2, z1))
        ]  # fmt: skip
        assert loss == pytest.approx(sum(both) / 2, abs=1e-5)


def test_simsiam_sends_no_gradient_through_the_projection_it_compares_with(tiny: Make, colour: ImageSet) -> None:
    task: Any = make_task(on_colour(tiny, pretext="simsiam"), colour)
    task.network.train()
    for parameter in task.network.predict.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(task.network.predict[-1].bias)  # the prediction is a constant: nothing can reach the backbone
    losses, _ = task.losses(colour.images[:8], torch.rand(8, 2, 7, generator=torch.Generator().manual_seed(0)))
    losses.mean().backward()
    assert float(task.network.backbone.conv1.weight.grad.abs().max()) == 0


# --- the file --------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(method="pt4al", pretext_epochs=2)
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        run_pretext(experiment, tmp_path / f"{name}.npz")
    run_pretext(tiny(method="pt4al", pretext_epochs=2, seed=1), tmp_path / "c.npz")
    assert digest(tmp_path / "a.npz") == digest(tmp_path / "b.npz") != digest(tmp_path / "c.npz")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("task", ["rotation", "simsiam"])
def test_a_task_that_was_interrupted_ends_in_the_same_bytes(task: str, tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(method="pt4al", pretext=task, pretext_epochs=4, checkpoint_seconds=0)
    run_pretext(experiment, tmp_path / "whole.npz")
    seen: list[int] = []

    def progress(status: dict[str, Any]) -> None:
        seen.append(status["epoch"])
        if seen == [1, 2, 3]:
            raise KilledError

    with pytest.raises(KilledError):
        run_pretext(experiment, tmp_path / "cut.npz", progress)
    assert not (tmp_path / "cut.npz").exists()
    run_pretext(experiment, tmp_path / "cut.npz", progress)
    assert seen == [1, 2, 3, 3, 4], "goes on after the last checkpoint"
    assert digest(tmp_path / "cut.npz") == digest(tmp_path / "whole.npz")
    assert not list(tmp_path.glob("*.pt"))


def test_a_file_that_is_there_is_read_back(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny(method="pt4al")
    first = run_pretext(experiment, tmp_path / "pretext.npz")
    monkeypatch.setattr(run_module, "make_task", lambda *_: pytest.fail("trained again"))
    left = [tmp_path / f"pretext.checkpoint.{end}pt" for end in ("", "new.", "previous.")]
    for file in left:  # of a process that was killed just after its losses were there
        file.write_bytes(b"checkpoint")
    assert run_pretext(experiment, tmp_path / "pretext.npz").losses.tolist() == first.losses.tolist()
    assert not any(file.exists() for file in left)


def test_a_file_of_other_settings_is_refused(tiny: Make, tmp_path: Path) -> None:
    run_pretext(tiny(method="pt4al"), tmp_path / "pretext.npz")
    with pytest.raises(CheckpointError, match="holds pretext losses with width = 4, not 8; choose another file"):
        run_pretext(tiny(method="pt4al", width=8), tmp_path / "pretext.npz")
    with pytest.raises(DataError, match=r"ends in \.npz"):
        run_pretext(tiny(method="pt4al"), tmp_path / "pretext.txt")


def test_runs_that_differ_in_other_things_share_their_losses(tiny: Make) -> None:
    base = pretext_key(tiny(method="pt4al"))
    for same in (
        {"budget": 5},
        {"epochs": 9},
        {"pt4al_order": "text"},
        {"method": "pt4al_cold_start"},
        {"test_size": 9},
        {"quirks": {"best_test_checkpoint": True}},
    ):
        assert pretext_key(tiny(**({"method": "pt4al"} | same))) == base
    for other in (
        {"quirks": {"rotation_four_passes": True}},
        {"seed": 1},
        {"pretext": "jigsaw"},
        {"pool_size": 100},
        {"width": 8},
        {"pretext_epochs": 7},
    ):
        assert pretext_key(tiny(method="pt4al", **other)) != base


def known_accuracies(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the n-th epoch have the n-th accuracy, and the loss n for each image."""
    epochs = [0]
    monkeypatch.setattr(Rotation, "train_epoch", lambda self, epoch: epochs.__setitem__(0, epoch) or 0.0)

    def score(self: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.ones(len(self.data), dtype=torch.float64)
        return one * (epochs[0] + 1), one * accuracies[epochs[0]]

    monkeypatch.setattr(Rotation, "score", score)


def test_the_epoch_of_the_best_accuracy_on_the_pool_is_kept(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_accuracies(monkeypatch, [0.25, 0.75, 0.5, 0.75])
    for released in (False, True):  # the program too: both of its loaders read the training images
        experiment = tiny(method="pt4al", pretext_epochs=4, quirks={"best_test_checkpoint": released})
        content = run_pretext(experiment, tmp_path / f"{released}.npz")
        assert (content.epoch, content.accuracy, set(content.losses.tolist())) == (2, 0.75, {2.0})
        assert read_losses(tmp_path / f"{released}.npz").history == (0.25, 0.75, 0.5, 0.75)


def test_losses_are_kept_as_numbers_and_as_text(tiny: Make, tmp_path: Path) -> None:
    run_pretext(tiny(method="pt4al"), tmp_path / "pretext.npz")
    with np.load(tmp_path / "pretext.npz") as file:
        assert file["index"].tolist() == list(range(200))
        assert file["losses"].dtype == np.float64
        assert file["text"].tolist() == [str(loss) for loss in file["losses"].tolist()]
    settings = read_losses(tmp_path / "pretext.npz").settings
    assert (settings["pretext"], settings["seed"], settings["dataset"]) == ("rotation", 0, "digits")


# --- notebooks -------------------------------------------------------------------------------------------------------


def test_a_single_run_computes_the_losses_it_was_not_given_and_reads_them_back(tiny: Make, tmp_path: Path) -> None:
    first = notebook.run(tiny(method="pt4al"), tmp_path)
    stamps = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert f"{pretext_key(tiny(method='pt4al'))}.npz" in stamps
    again = notebook.run(tiny(method="pt4al"), tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")} == stamps
    assert again.records == first.records
    kept_nothing = notebook.run(tiny(method="pt4al"))
    assert kept_nothing.queries["query_1"].tolist() == first.queries["query_1"].tolist()


def test_runs_of_one_outputs_dir_share_their_losses(tiny: Make, tmp_path: Path) -> None:
    for method in ("pt4al", "pt4al_cold_start"):
        notebook.run(tiny(method=method, epochs=1), outputs_dir=tmp_path)
    assert len(list((tmp_path / "digits" / "pretext").glob("*.npz"))) == 1


def test_a_method_without_a_pretext_task_is_left_as_it_is(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(method="margin")
    assert with_pretext(experiment, tmp_path) is experiment
    assert not list(tmp_path.iterdir())


def test_supervised_losses_are_of_the_images_that_the_pretext_losses_are_of(
    monkeypatch: pytest.MonkeyPatch, tiny: Make
) -> None:
    """The quirk `imbalance_step` decides which images there are."""
    seen = list[Experiment]()

    def looked(experiment: Experiment) -> None:
        seen.append(experiment)
        raise DataError("seen")

    monkeypatch.setattr("alkit.training.pretext.supervised.load_for", looked)
    for quirks in ({"imbalance_step": True}, {"imbalance_step": False}):
        experiment = Experiment(dataset="cifar10_lt", method="pt4al", protocol="released", quirks=quirks)
        with pytest.raises(DataError, match="seen"):
            supervised_losses(experiment)
        assert facts_of(seen[-1]).pool == facts_of(experiment).pool


def test_supervised_losses_are_those_of_a_model_trained_on_every_label(tiny: Make) -> None:
    experiment = tiny(method="pt4al", epochs=8, lr=0.1, milestones=[], width=8)
    losses = supervised_losses(experiment)
    train, _ = load_for(experiment)
    assert losses.shape == (len(train),)
    assert losses.mean() < np.log(10) * 0.6

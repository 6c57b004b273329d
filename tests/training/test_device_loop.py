"""What the kit does on a GPU, shown without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from made_up import made_pool
from pretend_gpu import on_gpu, pretend_gpu

from alkit import Experiment
from alkit.methods import METHODS
from alkit.strategies import k_means, make_strategy
from alkit.training.loop import make_optimizer

Make = Callable[..., Experiment]
TENSORS = ("logits", "log_probs", "predicted_loss", "labelled_predicted_loss", "features", "labelled_features",
           "model_features", "labelled_model_features", "labelled_logits", "weight")  # fmt: skip


# --- strategies on a GPU ---------------------------------------------------------------------------------------------


def test_the_pretended_gpu_notices_what_a_real_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_gpu(monkeypatch) as refused:
        there = torch.ones(3, device="cuda")
        assert there.device.type == "cuda"
        assert (there * 2.0).cpu().tolist() == [2, 2, 2]
        assert refused == []
        there + torch.ones(3)
        torch.rand(3, generator=torch.Generator(), device="cuda")
        there.numpy()
    assert len(refused) == 3


@pytest.mark.parametrize("method", [m for m in METHODS if not {"vae", "pretext"} & set(METHODS[m].needs)])
def test_a_strategy_mixes_no_devices_and_answers_as_on_the_cpu(
    method: str, tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a GPU k-means is the kit's own: here too, so that the answers can be compared
    monkeypatch.setattr(
        k_means, "_by_scikit_learn", lambda p, k, source: k_means.lloyd(p, k_means.first_centres(p, k, source))[0]
    )
    experiment = tiny(method=method, gcn_steps=3)
    expected = make_strategy(experiment).query(made_pool(30, 10), 8, torch.Generator().manual_seed(0))
    pool = made_pool(30, 10)
    with pretend_gpu(monkeypatch) as refused:
        for name in TENSORS:
            pool._tensors[name] = on_gpu(pool._tensors[name])
        answer = make_strategy(experiment).query(pool, 8, torch.Generator().manual_seed(0))
        assert torch.equal(answer.indices.cpu(), expected.indices)
    assert refused == []


# --- the optimizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_optimizer_is_torchs_own_step_for_step(kind: str, tiny: Make) -> None:
    experiment = tiny(optimizer=kind, lr=0.05)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.05, "weight_decay": experiment.weight_decay, "fused": True}
    mine = make_optimizer(ours, experiment, torch.device("cpu"))
    reference = torch.optim.Adam(theirs.parameters(), **options) if kind == "adam" else torch.optim.SGD(
        theirs.parameters(), momentum=experiment.momentum, **options
    )  # fmt: skip
    inputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for step in range(6):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            model(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step == 2:  # either can go on from the other's state
            state = mine.state_dict()
            mine.load_state_dict(reference.state_dict())
            reference.load_state_dict(state)
    assert torch.equal(ours.weight, theirs.weight)
    assert isinstance(mine, type(reference))


def test_training_leaves_the_compiler_unloaded_and_torchs_optimizers_as_they_were() -> None:
    program = """
import sys, torch
from alkit import Experiment
from alkit.training.loop import make_optimizer
def marks():
    methods = vars(torch.optim.Optimizer).items()
    return {name: dict(vars(method)) for name, method in methods if hasattr(method, "__dict__")}
before = marks()
inner = torch.optim.Optimizer.state_dict.__wrapped__
layer = torch.nn.Linear(2, 2)
for kind in ("sgd", "adam"):
    optimizer = make_optimizer(layer, Experiment(optimizer=kind), torch.device("cpu"))
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules, "the compiler was imported"
assert marks() == before and not hasattr(inner, "__dynamo_disable")
torch.optim.SGD(layer.parameters(), lr=0.1).step()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_while_a_run_is_deterministic_new_memory_is_not_filled_first() -> None:
    """Torch fills every new tensor with NaN then, unless told not to: one more kernel each."""
    from alkit.training.devices import deterministic

    with deterministic():
        assert torch.get_deterministic_debug_mode() == 1
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert torch.get_deterministic_debug_mode() == 0
    assert torch.utils.deterministic.fill_uninitialized_memory

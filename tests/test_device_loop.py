"""What the kit does on a GPU and through torch's compiler, shown without a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from made_up import made_pool
from pretend_gpu import on_gpu, pretend_gpu
from test_training import METHOD_OF, images, trainer

from alkit import Experiment
from alkit.methods import METHODS
from alkit.objectives import OBJECTIVES
from alkit.strategies import make_strategy
from alkit.training import compiled, make_optimizer

Make = Callable[..., Experiment]
TENSORS = ("logits", "log_probs", "predicted_loss", "labelled_predicted_loss", "features", "labelled_features")


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
    experiment = tiny(method=method, gcn_steps=3)
    expected = make_strategy(experiment).query(made_pool(30, 10), 8, torch.Generator().manual_seed(0))
    pool = made_pool(30, 10)
    with pretend_gpu(monkeypatch) as refused:
        for name in TENSORS:
            pool._tensors[name] = on_gpu(pool._tensors[name])
        answer = make_strategy(experiment).query(pool, 8, torch.Generator().manual_seed(0))
        assert torch.equal(answer.indices.cpu(), expected.indices)
    assert refused == []


# --- torch's compiler ------------------------------------------------------------------------------------------------


def compile_with(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[torch.fx.GraphModule]:
    """Have the compiler trace with `options` and generate no code; the list of the graphs it found."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    trace = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: trace(function, backend=backend, **options))
    torch.compiler.reset()
    return graphs


@pytest.mark.parametrize("pairing", ["permutation", "involution"])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_an_objective_compiles_as_one_graph(
    objective: str, pairing: str, tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = compile_with(monkeypatch, fullgraph=True)
    parameters = {"method": METHOD_OF[objective], "cmam_pairing": pairing, "dropout": 0.0}
    fast, plain = (trainer(tiny(compile=flag, **parameters), images()) for flag in (True, False))
    assert fast.train_epoch() == plain.train_epoch()
    assert len(graphs) == 1, "the small last batch has no graph of its own"


@pytest.mark.parametrize("model", ["mc_dropout_cnn", "radial_cnn"])
def test_what_draws_random_numbers_compiles_too(model: str, tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = compile_with(monkeypatch)
    parameters = {"method": "sbias", "model": model, "training_samples": 2}
    fast, plain = (trainer(tiny(compile=flag, **parameters), images()) for flag in (True, False))
    assert fast.train_epoch() == plain.train_epoch()
    assert graphs


def test_however_many_cycles_and_sizes_it_compiles_a_few_times(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit of 8 the compiler would silently leave the loop as it is."""
    graphs = compile_with(monkeypatch, fullgraph=True)
    for count in range(3, 15):
        trainer(tiny(compile=True), images(), count).train_epoch()
    assert 1 < len(graphs) <= 3


def test_on_cuda_a_compiled_step_is_a_recorded_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[bool] = []

    def note(function: Any, options: dict[str, Any]) -> Any:
        recorded.append(options["triton.cudagraphs"])
        return function

    monkeypatch.setattr(torch, "compile", note)
    for name in ("cuda", "cpu"):
        compiled(OBJECTIVES["cmam"], torch.device(name))
    assert recorded == [True, False]


COMPILED = {objective: {"method": METHOD_OF[objective]} for objective in sorted(OBJECTIVES)} | {
    "bfloat16": {"precision": "bfloat16"},
    "dropout": {"method": "bald", "model": "mc_dropout_cnn"},
    "radial": {"method": "sbias", "model": "radial_cnn"},
}


@pytest.mark.parametrize("case", COMPILED)
def test_a_compiled_training_ends_in_the_same_bits(case: str, tiny: Make) -> None:
    torch.compiler.reset()
    fast, plain = (trainer(tiny(compile=flag, epochs=3, **COMPILED[case]), images()) for flag in (True, False))
    assert [fast.train_epoch() for _ in range(3)] == [plain.train_epoch() for _ in range(3)]
    ours, expected = fast.network.state_dict(), plain.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_before_torch_2_10_it_compiles_without_a_recording(monkeypatch: pytest.MonkeyPatch, tiny: Make) -> None:
    def old(mode: str) -> dict[str, Any]:
        raise RuntimeError(f"Unrecognized mode={mode}")

    monkeypatch.setattr("torch._inductor.list_mode_options", old)
    torch.compiler.reset()
    fast, plain = (trainer(tiny(compile=flag), images()) for flag in (True, False))
    assert fast.train_epoch() == plain.train_epoch()


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
from alkit.training import make_optimizer
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

"""Compiled runs, by a compiler that only looks: one graph a size, none at all for what a stage changes."""

import json
from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from effnet.api import start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import (
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimizerConfig,
    ProgressiveConfig,
    TrainConfig,
)
from effnet.errors import UserError
from effnet.training.experiment import prepare_experiment
from effnet.training.rehearsal import compile_stages
from effnet.training.step import initial_state


@pytest.fixture
def config(tmp_path) -> Config:
    """Three stages of two sizes on digits, drop rates that change with each."""
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=2)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=24, train_size=24
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return Config(
        model=ModelConfig(network=str(tmp_path / "tiny.json")),
        data=DataConfig(source="digits"),
        progressive=ProgressiveConfig(
            stages=3,
            image_size=(16, 24),
            size_multiple=8,
            dropout_rate=(0.1, 0.3),
            drop_path_rate=(0.1, 0.3),
        ),
        train=TrainConfig(epochs=0.5, batch_size=64, device="cpu", compile="default"),
        optimizer=OptimizerConfig(name="sgd"),
        evaluate=EvaluateConfig(every_epochs=10.0, batch_size=100),
    )


@pytest.fixture(autouse=True)
def no_checks_of_shapes():
    """What checks annotations in tests is nothing that the compiler can look into."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def counter(monkeypatch) -> CompileCounterWithBackend:
    """Let the network be compiled by what counts graphs and runs them as they are."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compile_module = torch.nn.Module.compile

    def compile(module, *, mode, dynamic, fullgraph):
        assert mode == "default"
        compile_module(module, backend=counter, dynamic=dynamic, fullgraph=fullgraph)

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    return counter


def test_a_compiled_run_has_one_graph_a_size_and_the_same_result(config, counter, tmp_path):
    compiled = start_run(config, tmp_path / "compiled", quiet=True)
    assert counter.frame_count == 2
    plain = replace(config, train=replace(config.train, compile="off", kernels="plain"))
    result = start_run(plain, tmp_path / "plain", quiet=True)
    assert counter.frame_count == 2
    assert (compiled.val_top1, compiled.steps) == (result.val_top1, result.steps)
    weights = [
        (tmp_path / name / "checkpoints" / "best.safetensors").read_bytes() for name in ("compiled", "plain")
    ]
    assert weights[0] == weights[1]


def test_the_time_to_compile_is_kept_apart(config, counter, tmp_path):
    start_run(config, tmp_path / "run", quiet=True)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    compiled = [record["compiled"] for record in records if "compiled" in record]
    assert [record["image_size"] for record in compiled] == [24, 16]
    assert all(record["seconds"] > 0 for record in compiled)


def test_compiling_ahead_changes_nothing_and_skips_what_is_done(config, counter):
    experiment = prepare_experiment(config)
    state = initial_state(experiment)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    last = experiment.schedule.stages[-1]
    assert [done.image_size for done in compile_stages(state, experiment, last.start_step)] == [24]
    assert all(torch.equal(before[name], tensor) for name, tensor in state.model.state_dict().items())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert counter.frame_count == 1


def test_a_run_that_is_not_compiled_compiles_nothing_ahead(config):
    experiment = prepare_experiment(replace(config, train=replace(config.train, compile="off")))
    assert compile_stages(initial_state(experiment), experiment, 0) == []


def test_recomputed_blocks_cannot_be_compiled(config):
    model = replace(config.model, gradient_checkpointing=True)
    experiment = prepare_experiment(replace(config, model=model))
    with pytest.raises(UserError, match="gradient_checkpointing do not go together: the compiler"):
        initial_state(experiment)

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from effnet.config import OptimizerConfig
from effnet.errors import UserError
from effnet.training.checkpoint import DamagedCheckpointError, load_checkpoint, take_snapshot, write_snapshot
from effnet.training.ema import Ema
from effnet.training.optimizers import build_optimizer, optimizer_tensors, set_learning_rate
from effnet.weights.storage import write_tensors


@dataclass
class State:
    model: nn.Module
    ema: Ema | None
    optimizer: torch.optim.Optimizer

    def save(self, path: Path, step: int = 0, extra: dict[str, Any] | None = None) -> None:
        snapshot = take_snapshot(
            step=step, model=self.model, ema=self.ema, optimizer=self.optimizer, extra=extra or {}
        )
        write_snapshot(path, snapshot)

    def load(self, path: Path):
        return load_checkpoint(path, model=self.model, ema=self.ema, optimizer=self.optimizer)

    def bits(self) -> dict[str, torch.Tensor]:
        tensors = dict(self.model.state_dict())
        tensors |= {
            "ema/" + name: tensor for name, tensor in (self.ema.state_dict() if self.ema else {}).items()
        }
        tensors |= {"opt/" + name: tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        return {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.fixture
def make_state(make_network):
    def make(*, has_ema=True, optimizer="rmsprop_tf", **network):
        model = make_network(**network)
        ema = Ema(model, decay=0.99, warmup=True) if has_ema else None
        return State(model, ema, build_optimizer(model, OptimizerConfig(name=optimizer), 1.0))

    return make


@pytest.fixture
def train(backward):
    def run(state, steps):
        for step in steps:
            backward(state.model, step)
            set_learning_rate(state.optimizer, 0.01)
            state.optimizer.step()
            if state.ema:
                state.ema.update(step)

    return run


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("has_ema", [True, False])
@pytest.mark.parametrize("optimizer", ["rmsprop_tf", "sgd", "adamw"])
def test_continuing_equals_not_having_stopped(tmp_path, make_state, train, has_ema, optimizer):
    path, extra = tmp_path / "last.safetensors", {"seconds": 1.5, "best": None, "name": "run"}
    state = make_state(has_ema=has_ema, optimizer=optimizer)
    train(state, range(3))
    state.save(path, step=3, extra=extra)
    train(state, range(3, 6))

    resumed = make_state(has_ema=has_ema, optimizer=optimizer, seed=9)
    train(resumed, range(7, 9))
    info = resumed.load(path)
    assert (info.step, info.extra) == (3, extra)
    train(resumed, range(3, 6))
    assert_same_bits(state.bits(), resumed.bits())


def test_checkpoint_before_the_first_step_has_no_slots(tmp_path, make_state, train):
    path = tmp_path / "last.safetensors"
    make_state().save(path)
    state = make_state(seed=1)
    train(state, range(1))
    state.load(path)
    assert optimizer_tensors(state.optimizer) == {}


def test_tensors_stand_under_their_prefixes(tmp_path, make_state, train):
    state = make_state()
    train(state, range(1))
    state.save(tmp_path / "a.safetensors")
    names = load_file(tmp_path / "a.safetensors").keys()
    assert {name.split("/")[0] for name in names} == {"model", "ema", "optimizer"}
    assert "optimizer/stem.weight/mean_square" in names


def test_full_disk_leaves_the_previous_checkpoint(tmp_path, make_state, train):
    path = tmp_path / "last.safetensors"
    state = make_state(width=64)
    state.save(path, step=1)
    saved, bits = path.read_bytes(), state.bits()
    train(state, range(2))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(saved) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            state.save(path, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]
    assert path.read_bytes() == saved
    other = make_state(width=64, seed=4)
    assert other.load(path).step == 1
    assert_same_bits(other.bits(), bits)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_damaged_checkpoint_is_refused_and_changes_nothing(tmp_path, make_state, keep):
    path = tmp_path / "last.safetensors"
    make_state().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    state = make_state(seed=1)
    before = state.bits()
    with pytest.raises(UserError, match=r"last.safetensors is damaged .*; delete it"):
        state.load(path)
    assert_same_bits(before, state.bits())


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, make_state, train):
    path, state = tmp_path / "last.safetensors", make_state()
    train(state, range(1))
    state.save(path, step=1, extra={"best_step": 7})
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    before = state.bits()
    for place in (whole.index(b"best_step") + 13, header + 8, header + 1000, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(
            DamagedCheckpointError, match=r"last.safetensors is damaged \(its contents do not"
        ):
            state.load(path)
    assert_same_bits(before, state.bits())


def test_a_snapshot_does_not_follow_the_run_and_equal_states_are_equal_files(tmp_path, make_state, train):
    paths = [tmp_path / "taken.safetensors", tmp_path / "saved.safetensors"]
    state = make_state()
    train(state, range(2))
    state.save(paths[1], step=2)
    snapshot = take_snapshot(step=2, model=state.model, ema=state.ema, optimizer=state.optimizer, extra={})
    train(state, range(2, 3))
    write_snapshot(paths[0], snapshot)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_checkpoint_of_another_network_is_refused_and_changes_nothing(tmp_path, make_state, train):
    path = tmp_path / "last.safetensors"
    wide = make_state(width=6)
    train(wide, range(1))
    wide.save(path)
    state = make_state()
    before = state.bits()
    with pytest.raises(
        UserError, match=r"another network: 'stem.weight' has shape \[6, 3, 3, 3\] in the file"
    ):
        state.load(path)
    assert_same_bits(before, state.bits())


def test_checkpoint_with_an_additional_layer_is_refused(tmp_path, make_state):
    path = tmp_path / "last.safetensors"
    longer = make_state()
    longer.model.extra = nn.Linear(2, 2)
    longer.save(path)
    with pytest.raises(UserError, match=r"'extra.bias' has shape \[2\] in the file and none in this"):
        make_state().load(path)


def test_checkpoint_of_another_optimizer_is_refused(tmp_path, make_state):
    path = tmp_path / "last.safetensors"
    make_state(optimizer="sgd").save(path)
    with pytest.raises(UserError, match="with the optimizer SGD, this run uses RMSpropTF"):
        make_state().load(path)


def test_checkpoint_without_moving_average_is_refused(tmp_path, make_state):
    path = tmp_path / "last.safetensors"
    make_state(has_ema=False).save(path)
    with pytest.raises(UserError, match="written without a moving average"):
        make_state().load(path)


def test_weights_are_no_checkpoint(tmp_path, make_state):
    path = tmp_path / "best.safetensors"
    state = make_state()
    write_tensors(path, state.model.state_dict(), {"kind": "weights"})
    with pytest.raises(UserError, match=r"best.safetensors holds no state of a training run"):
        state.load(path)


def test_missing_checkpoint_is_named(tmp_path, make_state):
    with pytest.raises(UserError, match=r"there is no checkpoint .*none.safetensors"):
        make_state().load(tmp_path / "none.safetensors")

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import CheckpointConfig
from effnet.errors import UserError
from effnet.training import keeper as keeper_module
from effnet.training.checkpoint import DamagedCheckpointError, Snapshot, write_snapshot
from effnet.training.keeper import Keeper, checkpoint_path, checkpoints_in, load_newest


def snapshot(step: int) -> Snapshot:
    return Snapshot(step=step, tensors={"model/weight": torch.full((3,), float(step))}, metadata={})


def save_all(folder: Path, steps: list[int], config: CheckpointConfig, stage_ends: list[int]) -> None:
    keeper = Keeper(folder, config, stage_ends)
    for step in steps:
        keeper.save(lambda step=step: snapshot(step))
    keeper.wait()
    keeper.close()


def read_step(path: Path) -> int:
    """Stand for the loading of a state; a file that says so is damaged."""
    if b"damaged" in path.read_bytes():
        raise DamagedCheckpointError(f"{path.name} is damaged")
    return int(path.stem.removeprefix("step-"))


# What is kept


def test_checkpoints_are_named_by_their_steps(tmp_path):
    save_all(tmp_path, [1078], CheckpointConfig(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00001078.safetensors"]
    assert checkpoints_in(tmp_path) == {1078: checkpoint_path(tmp_path, 1078)}


def test_the_last_ones_and_the_ends_of_stages_are_kept(tmp_path):
    save_all(tmp_path, list(range(10, 101, 10)), CheckpointConfig(keep_last=2), [40, 70, 100])
    assert list(checkpoints_in(tmp_path)) == [40, 70, 90, 100]


def test_the_ends_of_stages_need_not_be_kept(tmp_path):
    config = CheckpointConfig(keep_last=1, keep_stage_ends=False)
    save_all(tmp_path, list(range(10, 101, 10)), config, [40, 70, 100])
    assert list(checkpoints_in(tmp_path)) == [100]


@given(
    steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=12, unique=True),
    keep_last=st.integers(1, 4),
    ends=st.sets(st.integers(0, 10**9), max_size=3),
)
def test_the_newest_is_always_kept(steps, keep_last, ends, tmp_path_factory):
    folder, steps = tmp_path_factory.mktemp("kept"), sorted(steps)
    save_all(folder, steps, CheckpointConfig(keep_last=keep_last), sorted(ends))
    assert list(checkpoints_in(folder)) == sorted({*steps[-keep_last:], *(ends & set(steps))})


def test_other_files_are_left_alone(tmp_path):
    others = ["best.safetensors", "step-00000001.safetensors.damaged", "my-step-00000002.safetensors"]
    for name in others:
        (tmp_path / name).touch()
    save_all(tmp_path, [3, 4, 5], CheckpointConfig(keep_last=1), [])
    assert {path.name for path in tmp_path.iterdir()} == {*others, "step-00000005.safetensors"}


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".step-00000007.safetensors.partial").write_bytes(b"half")
    save_all(tmp_path, [8], CheckpointConfig(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008.safetensors"]


# Writing


@pytest.fixture
def gate(monkeypatch):
    """Nothing is written until it is open."""
    gate = threading.Event()

    def write(path: Path, taken: Snapshot) -> None:
        assert gate.wait(10)
        write_snapshot(path, taken)

    monkeypatch.setattr(keeper_module, "write_snapshot", write)
    return gate


def test_the_run_goes_on_while_a_checkpoint_is_written(tmp_path, gate):
    keeper = Keeper(tmp_path, CheckpointConfig(), [])
    keeper.save(lambda: snapshot(1))
    assert checkpoints_in(tmp_path) == {}
    gate.set()
    keeper.wait()
    assert list(checkpoints_in(tmp_path)) == [1]
    keeper.close()


def test_the_next_snapshot_is_taken_when_the_one_before_is_written(tmp_path, gate):
    keeper = Keeper(tmp_path, CheckpointConfig(), [])
    keeper.save(lambda: snapshot(1))
    threading.Timer(0.05, gate.set).start()
    written = []

    def take() -> Snapshot:
        written.extend(checkpoints_in(tmp_path))
        return snapshot(2)

    keeper.save(take)
    assert written == [1]
    keeper.close()


def test_closing_waits_for_the_writing(tmp_path, gate):
    keeper = Keeper(tmp_path, CheckpointConfig(), [])
    keeper.save(lambda: snapshot(1))
    threading.Timer(0.05, gate.set).start()
    keeper.close()
    assert list(checkpoints_in(tmp_path)) == [1]


@pytest.fixture
def full_disk(monkeypatch):
    """The disk is full at step 2."""

    def write(path: Path, taken: Snapshot) -> None:
        if taken.step == 2:
            raise OSError(28, "No space left on device")
        write_snapshot(path, taken)

    monkeypatch.setattr(keeper_module, "write_snapshot", write)


@pytest.mark.parametrize("how", ["save", "wait"])
def test_a_full_disk_is_told_once_and_leaves_what_was_there(tmp_path, full_disk, how):
    keeper = Keeper(tmp_path, CheckpointConfig(keep_last=1), [])
    keeper.save(lambda: snapshot(1))
    keeper.save(lambda: snapshot(2))
    with pytest.raises(OSError, match="No space left"):
        keeper.save(lambda: snapshot(3)) if how == "save" else keeper.wait()
    assert list(checkpoints_in(tmp_path)) == [1]
    keeper.wait()
    keeper.close()


# Finding them again


def test_the_newest_is_loaded(tmp_path):
    save_all(tmp_path, [9, 10, 100], CheckpointConfig(keep_last=3), [])
    assert load_newest(tmp_path, read_step, pytest.fail) == 100


def test_where_there_is_none_nothing_is_loaded(tmp_path):
    assert load_newest(tmp_path, read_step, pytest.fail) is None
    assert load_newest(tmp_path / "not-there", read_step, pytest.fail) is None


def test_a_damaged_one_is_named_and_put_out_of_the_way_of_the_one_before(tmp_path):
    save_all(tmp_path, [9, 10, 11], CheckpointConfig(keep_last=3), [])
    for step in (10, 11):
        checkpoint_path(tmp_path, step).write_bytes(b"damaged")
    said: list[str] = []
    assert load_newest(tmp_path, read_step, said.append) == 9
    assert said == [
        f"step-{step:08}.safetensors is damaged; it is now step-{step:08}.safetensors.damaged, and the run "
        "continues from step 9"
        for step in (11, 10)
    ]
    assert list(checkpoints_in(tmp_path)) == [9]
    assert checkpoint_path(tmp_path, 11).with_suffix(".safetensors.damaged").read_bytes() == b"damaged"


def test_where_all_are_damaged_nothing_is_done(tmp_path):
    for step in (1, 2):
        checkpoint_path(tmp_path, step).write_bytes(b"damaged")
    with pytest.raises(
        UserError,
        match=r"step-00000002.safetensors is damaged; step-00000001.safetensors is damaged; "
        r"no other checkpoint is left: delete them to begin this run again",
    ):
        load_newest(tmp_path, read_step, pytest.fail)
    assert list(checkpoints_in(tmp_path)) == [1, 2]

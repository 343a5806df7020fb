"""Where on a machine a trial runs."""

import pytest

from effnet.search.places import trial_environment, trial_threads

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "head",
    "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x", "HOME": "/me",
}  # fmt: skip


def test_a_trial_is_no_part_of_the_torchrun_that_started_its_worker():
    assert trial_environment(TORCHRUN, 3, 0) == {
        "HOME": "/me", "OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "local", "gpu"), [(0, "0", "4"), (1, "0", "6"), (0, "1", "5"), (1, "1", "7"), (2, "0", "4")]
)
def test_of_several_gpus_each_worker_has_its_own(place, local, gpu):
    there = {"CUDA_VISIBLE_DEVICES": "4,5,6,7", "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": "2"}
    assert trial_environment(there, 1, place)["CUDA_VISIBLE_DEVICES"] == gpu


def test_a_single_gpu_is_shared():
    assert trial_environment({"CUDA_VISIBLE_DEVICES": "3"}, 1, 1)["CUDA_VISIBLE_DEVICES"] == "3"


def test_processors_are_shared_by_the_workers_of_all_local_processes(monkeypatch):
    monkeypatch.setattr("effnet.search.places.thread_count", lambda workers: 16)
    assert trial_threads(2) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert trial_threads(2) == 2
    assert trial_threads(100) == 1

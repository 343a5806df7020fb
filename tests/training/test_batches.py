from types import SimpleNamespace

import numpy as np
import pytest
import torch

from effnet.config import DataConfig
from effnet.data.images import LabelledImages
from effnet.errors import UserError
from effnet.training.batches import check_workers, worker_kind


@pytest.mark.parametrize(
    ("asked", "device", "workers", "blocks", "kind"),
    [
        ("auto", "cuda", 2, (), "processes"),
        ("auto", "cuda", 1, (), "threads"),
        ("auto", "cuda", 16, (3,), "threads"),
        ("auto", "cpu", 16, (), "threads"),
        ("threads", "cuda", 16, (), "threads"),
        ("processes", "cpu", 1, (), "processes"),
    ],
)
def test_processes_prepare_images_where_a_gpu_trains(monkeypatch, *, asked, device, workers, blocks, kind):
    monkeypatch.setattr("effnet.data.forks.sys", SimpleNamespace(platform="linux"))
    assert (
        worker_kind(DataConfig(worker_kind=asked), workers, torch.device(device), images_in_blocks(blocks))
        == kind
    )


@pytest.mark.parametrize(("kind", "is_resident"), [("processes", True), ("auto", False), ("threads", False)])
def test_a_run_that_asks_for_no_processes_is_not_refused(kind, is_resident):
    check_workers(DataConfig(worker_kind=kind, resident=is_resident), images_in_blocks())


def test_processes_that_cannot_read_the_images_are_refused_before_there_is_a_run():
    with pytest.raises(UserError, match=r"data\.worker_kind 'processes' is for"):
        check_workers(DataConfig(worker_kind="processes"), images_in_blocks())


def images_in_blocks(blocks=(3,)):
    return LabelledImages(
        class_names=("x",), labels=np.zeros(3, np.int64), names="abc", read=lambda index: b"", blocks=blocks
    )

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from effnet.config import DataConfig
from effnet.data.images import LabelledImages
from effnet.training.batches import worker_kind


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
    images = LabelledImages(
        class_names=("x",), labels=np.zeros(3, np.int64), names="abc", read=lambda index: b"", blocks=blocks
    )
    assert worker_kind(DataConfig(worker_kind=asked), workers, torch.device(device), images) == kind

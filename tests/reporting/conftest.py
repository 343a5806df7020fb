"""Tiny runs: finished ones, and the ways in which a run can be less than that."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from effnet.api import configure, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json

EVIL = "<script>alert('x')&"
"""A class whose name is markup."""
COLORS = {EVIL: (220, 30, 30), "blue": (20, 40, 220), "green": (30, 210, 40)}
CHANGES = [
    "progressive.stages=2",
    "progressive.image_size=[8,16]",
    "progressive.size_multiple=1",
    "train.batch_size=4",
    "data.workers=1",
    "ema.decay=0.5",
]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """``photos`` (eight noisy squares of each colour) and ``tiny.json``, a network."""
    folder, rng = tmp_path_factory.mktemp("reporting"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(8):
            pixels = np.clip(np.array(color) + rng.normal(0, 25, (24, 20 + index, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{index}.png")
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=16, image_size=16, train_size=16
    )
    (folder / "tiny.json").write_text(spec_to_json(spec))
    return folder


def train(workspace: Path, name: str, *changes: str, data: Path | None = None) -> Path:
    config = configure(
        data or workspace / "photos",
        recipe="scratch",
        model=workspace / "tiny.json",
        changes=[*CHANGES, "train.epochs=2", *changes],
    )
    start_run(config, workspace / name, quiet=True)
    return workspace / name


@pytest.fixture(scope="session")
def finished(workspace) -> Path:
    """A run that has been trained to its end; not to be written to."""
    return train(workspace, "finished")


@pytest.fixture(scope="session")
def another(workspace) -> Path:
    """Another one on the same images, with another seed; not to be written to."""
    return train(workspace, "another", "train.seed=1", "train.epochs=1")


@pytest.fixture
def copy(tmp_path):
    """Copy a run, to be written to: ``copy(run)``."""

    def copy(run: Path, name: str = "copy") -> Path:
        return Path(shutil.copytree(run, tmp_path / name))

    return copy


@pytest.fixture
def unfinished(finished, copy) -> Path:
    """A run that was stopped before its first evaluation."""
    run = copy(finished, "unfinished")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if "val_top1" in json.loads(line))
    assert first > 0
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines[:first]))
    (run / "checkpoints" / "best.safetensors").unlink()
    return run


@pytest.fixture
def moved(finished, copy) -> Path:
    """A run whose photos are not where they were."""
    run = copy(finished, "moved")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace('/photos"', '/gone"'))
    return run


@pytest.fixture(scope="session")
def several_labels(workspace) -> Path:
    """A run on images with up to three labels each; not to be written to."""
    rng = np.random.default_rng(0)
    table: dict[str, list[object]] = {"image": [], "labels": []}
    for _ in range(24):
        labels = rng.permutation(3)[: rng.integers(1, 4)]
        file = io.BytesIO()
        color = np.isin(np.arange(3), labels) * 200 + rng.integers(0, 40, 3)
        Image.fromarray(np.full((16, 16, 3), color, np.uint8)).save(file, "PNG")
        table["image"].append({"bytes": file.getvalue(), "path": None})
        table["labels"].append([int(label) for label in labels])
    features = {
        "image": {"_type": "Image"},
        "labels": {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["red", "green", "blue"]}},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path = workspace / "colors.parquet"
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), path)
    return train(workspace, "several", "train.loss=sigmoid", "train.epochs=1", data=path)

"""The ``effnet`` command in this process, a folder of photos, and a run on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.api import configure, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.cli.main import main

COLORS = {"blue": (20, 40, 220), "green": (30, 210, 40), "red": (220, 30, 30)}
RECIPE = """
extends = "scratch"
[model]
network = "{network}"
[data]
source = "{photos}"
[progressive]
stages = 2
image_size = [8, 16]
size_multiple = 1
[train]
epochs = 2
batch_size = 4
[ema]
decay = 0.5
"""


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def effnet(capsys, monkeypatch) -> Callable[..., Answer]:
    """Run the command: ``effnet("models", "v2-s", "--json")``."""

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # main sets it, and the tests behind must not see it
        monkeypatch.setattr(sys, "argv", ["effnet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_request:
            main()
        out, err = capsys.readouterr()
        return Answer(int(exit_request.value.code or 0), out, err)

    return run


@pytest.fixture
def mistake(effnet) -> Callable[..., str]:
    """Run a command that the user got wrong; return the one sentence that it says about it."""

    def run(*arguments: str | Path) -> str:
        answer = effnet(*arguments)
        assert answer.code == 2
        assert answer.out == ""
        assert answer.err.startswith("effnet: ")
        assert answer.err.count("\n") == 1
        return answer.err

    return run


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Path:
    """``photos`` (six noisy squares of each colour), ``tiny.json`` and ``tiny.toml`` (network and recipe)."""
    folder, rng = tmp_path_factory.mktemp("workspace"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(6):
            pixels = np.clip(np.array(color) + rng.normal(0, 25, (24, 20 + index, 3)), 0, 255)
            ending = "png" if index % 2 else "jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{index}.{ending}")
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=2)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=16, image_size=16, train_size=16
    )
    (folder / "tiny.json").write_text(spec_to_json(spec))
    (folder / "tiny.toml").write_text(RECIPE.format(network=folder / "tiny.json", photos=folder / "photos"))
    return folder


@pytest.fixture(scope="session")
def recipe(workspace) -> Path:
    return workspace / "tiny.toml"


@pytest.fixture(scope="session")
def photos(workspace) -> Path:
    return workspace / "photos"


@pytest.fixture(scope="session")
def finished(workspace, recipe) -> Path:
    """A run that has been trained to its end; not to be written to."""
    start_run(configure(recipe=recipe), workspace / "finished", quiet=True)
    return workspace / "finished"

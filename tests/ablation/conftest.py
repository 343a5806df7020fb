"""An ``effnet`` that only pretends to train, so that a whole grid takes a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from effnet import runs
from effnet.ablation.definitions import ablation_named
from effnet.ablation.runner import Study, plan_study

PRETENDER = """
import json, os, pathlib, signal, sys, time

arguments = sys.argv[1:]
resumes = arguments[1] == "--resume"
run = pathlib.Path(arguments[arguments.index("--resume" if resumes else "--out") + 1])
run.mkdir(parents=True, exist_ok=True)
(run / "config.toml").touch()
with (run / "sessions").open("a") as file:
    file.write("resumed\\n" if resumes else "started\\n")
behaviour = run.parent.parent / "behaviour" / run.parent.name
mode = behaviour.read_text() if behaviour.exists() else ""
if mode == "fail":
    sys.exit("a remark\\neffnet: the loss is nan at step 3")
if mode == "vanish":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "interrupt" and not resumes:
    def save(number, frame):
        (run / "saved").touch()
        sys.exit(130)
    signal.signal(signal.SIGINT, save)
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
seed = int(run.name.removeprefix("seed-"))
result = {"val_top1": 0.5 + 0.1 * seed, "step_seconds": 2.0, "images": 100, "macs": 10**9,
          "threads": os.environ["OMP_NUM_THREADS"], "arguments": arguments}
print(json.dumps(result))
"""


@pytest.fixture(autouse=True)
def pretender(tmp_path, monkeypatch) -> None:
    script = tmp_path / "pretender.py"
    script.write_text(PRETENDER)
    monkeypatch.setattr(runs, "_EFFNET", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(runs, "_POLL_SECONDS", 0.01)


@pytest.fixture
def study(tmp_path) -> Callable[..., Study]:
    def make(name: str = "table13", **options) -> Study:
        return plan_study(ablation_named(name), "digits", tmp_path / "out", **options)

    return make


@pytest.fixture
def behave(tmp_path) -> Callable[[str, str], Path]:
    """Say how the runs of a cell will go: ``fail``, ``vanish``, ``interrupt``, or well (empty)."""

    def say(cell: str, mode: str) -> Path:
        path = tmp_path / "out" / "behaviour" / cell
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(mode)
        return path

    return say

"""A tiny study for tests: a space of 8 networks, settings, and a process that stands for a training."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event

from effnet.arch.io import to_dict
from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.recipes import resolve_config
from effnet.search.bounds import Bounds
from effnet.search.ledger import Ledger
from effnet.search.objective import Objective
from effnet.search.settings import SearchSettings, without_place
from effnet.search.space import SearchSpace, StageChoices
from effnet.search.study import Study

BACKBONE = NetworkSpec(
    name="tiny",
    stem_channels=8,
    head_channels=16,
    image_size=8,
    train_size=8,
    num_classes=10,
    stages=(
        StageSpec(operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=1),
        StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=16, repeats=1),
    ),
)
SPACE = SearchSpace(
    name="toy",
    backbone=BACKBONE,
    stages=(
        StageChoices(
            operation=("fused_mbconv",),
            kernel_size=(3, 5),
            expand_ratio=(1,),
            repeats=(1,),
            channels=(8,),
            se_ratio=(0.0,),
        ),
        StageChoices(
            operation=("mbconv",),
            kernel_size=(3, 5),
            expand_ratio=(2, 4),
            repeats=(1,),
            channels=(16,),
            se_ratio=(0.0,),
        ),
    ),
)
RUN = resolve_config(
    "search",
    ["train.epochs=3", "train.batch_size=16", "progressive.image_size=[8,8]", "evaluate.image_size=8",
     "data.max_train_images=48", "ema.decay=0.5", "data.workers=1"],
)  # fmt: skip


def settings(**changes) -> SearchSettings:
    """Return the settings of a tiny study."""
    plain = SearchSettings(
        run=without_place(RUN),
        images="0123456789abcdef",
        objective=Objective(kind="v1", target=1e6),
        bounds=Bounds(),
        strategy="random",
        eta=0,
        reference_ms=10.0,
        step_images=4,
        step_seconds=0.05,
    )
    return replace(plain, **changes)


def open_study(folder: Path, **changes) -> Study:
    """Begin or join a tiny study in a folder."""
    ours = settings(**changes)
    folder.mkdir(exist_ok=True)
    ledger = Ledger.open(
        f"sqlite:///{folder / 'study.db'}", ours.to_dict(), to_dict(SPACE), lease_seconds=1.0
    )
    return Study(ledger=ledger, settings=ours, space=SPACE, folder=folder, source="digits")


SUCCESS = "ending(state='done', measures={'accuracy': 0.5, 'macs': 1000000})"
PROCESS = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def write(name, text):
    temporary = folder / ('.' + name)
    temporary.write_text(text)
    (folder / name).parent.mkdir(exist_ok=True)
    temporary.replace(folder / name)
def ending(**values):
    write('ending.json', json.dumps(values))
def costs(**values):
    write('costs.json', json.dumps(values))
def metrics(**values):
    (folder / 'run').mkdir(exist_ok=True)
    with (folder / 'run' / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps(values) + chr(10))
"""


def process(script: str) -> tuple[str, ...]:
    """Return the command of a process that does what ``script`` says in place of a training."""
    return (sys.executable, "-c", PROCESS + script)


def wait_for(condition, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)


def never_stopped() -> Event:
    """Return an event that nobody sets."""
    return Event()

"""Runs on a GPU: one after the other in this process, which opens the images and warms up once.

What is warmed up is what a second run on a machine does not pay for either: kernels that are compiled, and
algorithms that are tried for each size of image.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from effnet.config import Config, DataConfig
from effnet.data.resident import load_resident
from effnet.data.sources import open_configured
from effnet.training.compiling import is_compiled
from effnet.training.loop import InterruptedRunError
from effnet.training.preflight import release_memory, synchronize
from race.case import Race
from race.clock import RaceClock
from race.ours import Opened, run_ours
from race.worker import asked

REHEARSED_STEPS, REHEARSED_DRAWS = 3, 40
"""Of each stage; and where sizes are drawn, so many that each of them comes up."""
Request = dict[str, Any]


class Alone:
    """Does requests.

    Args:
        deadline: By `time.monotonic`; no run is begun that would probably end later. None: all are done.
        note: Told each answer.
    """

    def __init__(self, deadline: float | None, note: Callable[[Request, dict[str, Any]], None]) -> None:
        self._deadline, self._note = deadline, note
        self._seconds: dict[str, float] = {}
        self.failures: list[str] = []
        self.opening: dict[str, dict[str, float]] = {}
        """What opening the images of a race took, in seconds."""

    def run(self, requests: list[Request]) -> None:
        """Rehearse each arm, then do all."""
        first: dict[tuple[str, str], Request] = {}
        for request in requests:
            first.setdefault((request["race"], request["arm"]), request)
        self._each(first.values(), is_rehearsal=True)
        self._each(requests, is_rehearsal=False)

    def _each(self, requests: Iterable[Request], *, is_rehearsal: bool) -> None:
        for request in requests:
            if self.failures:
                return
            name = f"{request['race']} {request['arm']} {request['seed']}"
            expected = 0.0 if is_rehearsal else self._seconds.get(request["arm"], 0.0)
            if self._deadline is not None and time.monotonic() + expected > self._deadline:
                continue
            began = time.monotonic()
            try:
                answer = self._run(request, is_rehearsal=is_rehearsal)
            except InterruptedRunError:
                self.failures.append("stopped; the same command goes on with the runs that are left")
                return
            taken = time.monotonic() - began
            if is_rehearsal:
                print(f"{name}: rehearsed in {taken:.1f} s", file=sys.stderr, flush=True)
            else:
                self._seconds[request["arm"]] = taken
                self._note(request, answer | {"command_seconds": taken})

    def _run(self, request: Request, *, is_rehearsal: bool) -> dict[str, Any]:
        race, arm, config = asked(request)
        if arm.engine == "timm":
            raise ValueError("timm's arm runs on processors; leave it out of --arms")
        opened = self._opened(race, config)
        config = rehearsal_of(config, len(opened.data.train)) if is_rehearsal else config
        folder = Path(request["folder"])
        shutil.rmtree(folder, ignore_errors=True)
        answer = run_ours(config, race, folder, is_composer=arm.engine == "composer", opened=opened)
        shutil.rmtree(folder)
        if is_compiled(config):
            # Else networks of earlier runs would count as so many shapes of this one.
            torch.compiler.reset()
        release_memory(torch.device(config.train.device))
        return answer | {"seed": request["seed"], "arm": request["arm"], "load": os.getloadavg()[0]}

    def _opened(self, race: Race, config: Config) -> Opened:
        clock = RaceClock()
        opened = opened_once(config.data, config.train.device)
        self.opening.setdefault(race.name, clock.spent._asdict())
        return opened


@lru_cache(maxsize=1)
def opened_once(config: DataConfig, device: str) -> Opened:
    """Open the images of a race, and put those to train on where they are kept."""
    data, where = open_configured(config), torch.device(device)
    resident = load_resident(data.train, config, where) if config.resident else None
    synchronize(where)
    return Opened(data, resident)


def rehearsal_of(config: Config, images: int) -> Config:
    """Return a run of the same kind with a few steps of each stage.

    Args:
        config: The run.
        images: In an epoch.
    """
    is_drawn = config.progressive.mode == "random"
    steps = REHEARSED_DRAWS if is_drawn else REHEARSED_STEPS * config.progressive.stages
    epochs = (steps + 0.5) * config.train.batch_size / images
    progressive = replace(config.progressive, redraw_epochs=epochs / steps)
    return replace(config, train=replace(config.train, epochs=epochs), progressive=progressive)

"""One run in a process of its own, on a core of its own: a request in JSON, an answer in a file."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from effnet.config import Config
from effnet.files import write_json
from race.case import ARMS, Arm, Race, config_of
from race.races import RACES, quickened


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for."""
    race, arm, config = asked(request)
    if arm.engine == "timm":
        from race.theirs import run_timm  # noqa: PLC0415

        return run_timm(config, race)
    from race.ours import run_ours  # noqa: PLC0415

    folder = Path(request["folder"])
    shutil.rmtree(folder, ignore_errors=True)
    return run_ours(config, race, folder, is_composer=arm.engine == "composer")


def asked(request: dict[str, Any]) -> tuple[Race, Arm, Config]:
    """Return what a request means."""
    race, arm = RACES[request["race"]], {arm.name: arm for arm in ARMS}[request["arm"]]
    race = quickened(race) if request["quick"] else race
    config = config_of(
        race,
        arm,
        seed=request["seed"],
        data=Path(request["data"]),
        extra=request["changes"],
        weights=Path(request["weights"]) if request["weights"] else None,
        device=request["device"],
    )
    return race, arm, config


def main() -> None:
    """Run, and write the answer; the core is the one that is named."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    if request["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {request["core"]})
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    answer = run(request) | {"seed": request["seed"], "arm": request["arm"]}
    write_json(Path(request["out"]), answer)


if __name__ == "__main__":
    main()

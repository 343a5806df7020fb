"""How soon a network is as accurate as one that is trained at a fixed size, and how accurate it gets.

    make bench-time-to-accuracy DATA=folder ARGS=--weights=FILE                 # everything; weights of V2-B0
    make bench-time-to-accuracy DATA=folder ARGS="--races cifar10,flowers"      # from scratch alone
    make bench-time-to-accuracy DATA=folder ARGS="--races cifar10 --quick"      # to see that it works
    python benchmarks/time_to_accuracy.py folder --device cuda --minutes 8       # the race for a GPU

DATA has the folders of the races (`benchmarks/race/races.py`). Each run has a process of its own, with one
thread on a core of its own, and so many run side by side as --cores are named; all arms of a seed come one
after the other, then those of the next seed. A run's time is all that training takes, from opening the images
to the last checkpoint, steps that are compiled included; imports, and looking at the result, are not. All are
judged alike: the moving average, at the full size. After each run all figures are in --out; a command that
is interrupted goes on there. At the end the table and the picture are made of them; --fill puts the table
into a document.

On a GPU there is one process. It opens the images once, and rehearses each arm in a few steps, so that what
is compiled or tried there is no part of a run's time; what opening took is in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from mistakes import mistakes_told
from race.case import ARMS, told
from race.page import fill, picture, table
from race.races import RACES, quickened

from effnet.data.copies import CopySettings
from effnet.data.prepare import prepare_store
from effnet.errors import did_you_mean
from effnet.export.packages import versions
from effnet.files import write_json
from effnet.training.journal import environment

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "timm", "numpy", "pillow")


def parsed(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="else results/time-to-accuracy.json, or -gpu.json")
    parser.add_argument("--work", type=Path, default=Path("runs/time-to-accuracy"), help="folder for runs")
    parser.add_argument("--weights", type=Path, help="of V2-B0, for the races that start from them")
    parser.add_argument("--races", default="", help="else those for the device")
    parser.add_argument("--arms", default="", help=f"of {','.join(arm.name for arm in ARMS)}")
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cores", default="0,1", help="one run on each; none: 'any'")
    parser.add_argument("--one-process", action="store_true", help="as on a GPU")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no run later; 0: all are run")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="change all runs")
    parser.add_argument("--quick", action="store_true", help="a few steps of each way")
    parser.add_argument("--fill", type=Path, help="document to put the table into, between its marks")
    parser.add_argument("--picture", type=Path, help="where to; else beside --out")
    arguments = parser.parse_args(given)
    is_gpu = arguments.device == "cuda"
    arguments.one_process |= is_gpu
    if is_gpu and not torch.cuda.is_available():
        parser.error(
            "there is no CUDA device; --one-process --races cifar10-whole --quick checks its race without one"
        )
    races = [race.name for race in RACES.values() if race.device == arguments.device]
    arms = [arm.name for arm in ARMS if arm.is_usual and (arm.engine == "effnet" or not arguments.one_process)]
    arguments.races, arguments.arms = arguments.races or ",".join(races), arguments.arms or ",".join(arms)
    arguments.out = arguments.out or HERE / "results" / f"time-to-accuracy{'-gpu' * is_gpu}.json"
    for option, known in (("races", list(RACES)), ("arms", [arm.name for arm in ARMS])):
        for name in getattr(arguments, option).split(","):
            if name not in known:
                parser.error(f"--{option} has '{name}'{did_you_mean(name, known)}")
    if arguments.quick:
        arguments.seeds, arguments.out = 1, arguments.work / "quick.json"
    pretrained = [name for name in arguments.races.split(",") if RACES[name].is_pretrained]
    if pretrained and not arguments.weights:
        parser.error(
            f"{', '.join(pretrained)} starts from trained weights; name a file by --weights, "
            "or other races by --races"
        )
    return arguments


def jobs(arguments: argparse.Namespace, done: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that are still to be done, seed by seed."""
    found, arms = [], {arm.name: arm for arm in ARMS}
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for race in arguments.races.split(","):
            for arm in arguments.arms.split(","):
                if key(race, arm, seed) not in done and arms[arm].is_in(RACES[race]):
                    found.append({"race": race, "arm": arm, "seed": seed})
    return found


def key(race: str, arm: str, seed: int) -> str:
    """Return what a run is called in the results."""
    return f"{race} {arm} {seed}"


def prepared(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Make the copies that all arms of a race read; return where its data is, and the seconds it took."""
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.races.split(","):
        race = RACES[name]
        source = (arguments.data / race.folder).resolve()
        if not race.short_sides:
            found[name] = {"data": str(source)}
            continue
        store, began = (arguments.work / f"store-{name}").resolve(), time.process_time()
        prepare_store(str(source), store, CopySettings(short_sides=race.short_sides))
        found[name] = {"data": str(store), "prepare_cpu": time.process_time() - began}
    return found


def requested(job: dict[str, Any], arguments: argparse.Namespace, data: str) -> dict[str, Any]:
    """Return a job with all that a run needs to know."""
    return job | {
        "data": data,
        "folder": str(arguments.work / key(**job).replace(" ", "-")),
        "quick": arguments.quick,
        "changes": arguments.changes,
        "weights": str(arguments.weights.resolve()) if arguments.weights else "",
        "device": arguments.device,
    }


def run_one(
    job: dict[str, Any],
    core: int | None,
    arguments: argparse.Namespace,
    data: str,
    children: set[subprocess.Popen[bytes]],
) -> dict[str, Any]:
    """Run a job in a process of its own, which is among the children meanwhile.

    Raises:
        RuntimeError: It failed.
    """
    name = key(**job).replace(" ", "-")
    out = arguments.work / f"{name}.json"
    out.unlink(missing_ok=True)
    request = requested(job, arguments, data) | {"core": core, "out": str(out)}
    log = arguments.work / f"{name}.log"
    with log.open("w", encoding="utf-8") as lines:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "race" / "worker.py"), json.dumps(request)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=lines,
            stderr=lines,
        )
        children.add(child)
        failed = child.wait()
        children.remove(child)
    if failed:
        raise RuntimeError(f"{name} failed; {log} has its last words")
    answer: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return answer


class Lanes:
    """Runs jobs side by side, one on each core.

    Args:
        arguments: Of the command line.
        report: Where the answers go.
        where: Data of each race.
    """

    def __init__(self, arguments: argparse.Namespace, report: dict[str, Any], where: dict[str, Any]) -> None:
        self._arguments, self._report, self._where = arguments, report, where
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        for job in jobs(arguments, report["runs"]):
            self._jobs.put(job)
        self._lock, self._began = threading.Lock(), time.monotonic()
        self._children: set[subprocess.Popen[bytes]] = set()
        self.failures: list[str] = []

    def run(self) -> None:
        """Do all."""
        names = self._arguments.cores.split(",")
        cores = [None if name == "any" else int(name) for name in names]
        threads = [threading.Thread(target=self._lane, args=(core,)) for core in cores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """End what runs, which fails, and begin nothing more."""
        self.failures.append("stopped; the same command goes on with the runs that are left")
        for child in list(self._children):
            child.terminate()

    def _lane(self, core: int | None) -> None:
        while not self.failures:
            minutes = (time.monotonic() - self._began) / 60
            if 0 < self._arguments.minutes <= minutes:
                return
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                data = self._where[job["race"]]["data"]
                answer = run_one(job, core, self._arguments, data, self._children)
            except RuntimeError as error:
                self.failures.append(str(error))
                return
            answer |= {"load": os.getloadavg()[0], "core": core}
            with self._lock:
                note(job, answer, self._arguments, self._report)


def note(
    job: dict[str, Any], answer: dict[str, Any], arguments: argparse.Namespace, report: dict[str, Any]
) -> None:
    """Keep what a run came to, and tell it."""
    name = key(job["race"], job["arm"], job["seed"])
    report["runs"][name] = answer
    write_json(arguments.out, report)
    print(
        f"{name}: {answer['top1']:.2%} in {answer['wall']:.1f} s, {answer['cpu']:.1f} s of the processor "
        f"[load {answer['load']:.1f}]",
        flush=True,
    )


def run_alone(arguments: argparse.Namespace, report: dict[str, Any], where: dict[str, Any]) -> list[str]:
    """Do all runs in this process; return what failed."""
    from race.alone import Alone  # noqa: PLC0415 - who runs processes for others does not need it

    deadline = time.monotonic() + 60 * arguments.minutes if arguments.minutes else None
    alone = Alone(deadline, lambda job, answer: note(job, answer, arguments, report))
    report["opening"] = alone.opening
    wanted = jobs(arguments, report["runs"])
    alone.run([requested(job, arguments, where[job["race"]]["data"]) for job in wanted])
    return alone.failures


def main(given: list[str] | None = None) -> None:
    """Run what is asked for."""
    arguments = parsed(given)
    arguments.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"runs": {}}
    if arguments.out.exists() and not arguments.quick:
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
    where = prepared(arguments)
    races = {name: told(quickened(RACES[name]) if arguments.quick else RACES[name]) for name in where}
    for name, settings in races.items():
        before = report.get("races", {}).get(name, settings)
        if before != settings:
            raise SystemExit(f"{arguments.out} has runs of {name} with other settings; give another --out")
    report["races"] = report.get("races", {}) | races
    report.setdefault("environment", environment())
    report.setdefault("versions", versions(*PACKAGES))
    report.setdefault("prepare_cpu", {}).update(
        {name: entry["prepare_cpu"] for name, entry in where.items() if entry.get("prepare_cpu", 0) > 1}
    )
    if arguments.one_process:
        report |= {"device": arguments.device, "changes": arguments.changes}
        failures = run_alone(arguments, report, where)
    else:
        lanes = Lanes(arguments, report, where)
        # Else runs would go on by themselves, and take the cores from what is measured next.
        signal.signal(signal.SIGTERM, lambda *_: lanes.stop())
        lanes.run()
        failures = lanes.failures
    print(table(report))
    picture(report, arguments.picture or arguments.out.with_suffix(".png"))
    if arguments.fill:
        fill(arguments.fill, table(report))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    with mistakes_told():
        main()

"""Training steps and answers on a GPU, ours and timm's in turns, with memory, bandwidth and kernels' shares.

    make bench-gpu                                  # as much as ten minutes allow, the most important first
    make bench-gpu ARGS="--only infer --keep"       # answers as well, beside what the file has already
    make bench-gpu ARGS="--only 'train v2-s 300px'" # cases whose key has these words
    make bench-gpu ARGS="--minutes 30"              # everything
    python benchmarks/gpu_speed.py --device cpu --quick    # checks this script; its times mean nothing

Each way has a process of its own. All that are compiled are compiled at the same time; then each does its
warm-up and one turn a round while the others wait, and gives the memory that it does not need back. Where
time is short, rounds are dropped first, then cases from the end of `on_gpu.cases.PLAN`; what was left out is
told, and why. After each case all figures are in --out. It runs in any environment with effnet and a torch
for the GPU: what is not installed (timm, Triton) is left out.

The roof is what the measured copy bandwidth allows if 30 bytes move for each output of a convolution: in
bf16, what a step moves whose batch norms, activations and gates are operations of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from on_gpu.cases import PLAN, QUICK, Planned, Way, ways_of
from on_gpu.table import table
from side_by_side.power import processor
from side_by_side.process import OutOfTimeError, Worker

from effnet.arch import load_spec
from effnet.arch.accounting import network_cost
from effnet.export.packages import versions
from effnet.files import write_json
from effnet.training.journal import environment

HERE = Path(__file__).resolve().parent
WORKER = HERE / "on_gpu" / "worker.py"
PACKAGES = (
    "effnet",
    "torch",
    "triton",
    "timm",
    "torchvision",
    "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12",
    "numpy",
)
ROUNDS, FEWEST_ROUNDS = 5, 2
TURN_SECONDS, MOST_CALLS = 0.7, 100
LEAST_SECONDS = 40.0
"""No case is begun with less than that."""
READY, COMPILE_SECONDS = 0.7, 240.0
"""Who is compiled must be ready in this share of a case's time, or in so many seconds if that is more."""
RESERVE = 5.0
"""Seconds before the limit at which everything ends."""
MODEL_BYTES = 30
"""That a training step moves for each output of a convolution, batch norm and activation unfused, in bf16."""
_STATE = (
    "clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu,pstate,utilization.gpu,"
    "memory.used,driver_version"
)


class Bench:
    """One call of this script.

    Args:
        arguments: Of the command line.
        deadline: By `time.monotonic`.
        report: Gets all figures.
    """

    def __init__(self, arguments: argparse.Namespace, deadline: float, report: dict[str, Any]) -> None:
        self._given, self._deadline, self._report = arguments, deadline, report
        self._workers: dict[str, Worker] = {}

    def close(self) -> None:
        """End all processes."""
        while self._workers:
            self._workers.popitem()[1].close()

    def roofs(self) -> dict[str, Any]:
        """Return what the device does at best."""
        return self._worker("roofs").ask("roofs", deadline=self._deadline)

    def measure(self, planned: Planned, until: float) -> dict[str, Any]:
        """Prepare, check and time one case.

        Args:
            planned: The case.
            until: Rounds end by then, by `time.monotonic`, if there were enough.

        Raises:
            OutOfTimeError: The limit was reached before there were figures.
        """
        taking = ways_of(
            planned,
            device=self._given.device,
            compiles=self._given.compiles,
            chosen=[name for name in self._given.ways.split(";") if name],
        )
        left_out = dict(taking.left_out)
        with _folder() as folder:
            share = READY * (until - time.monotonic())
            ready_by = time.monotonic() + max(share, COMPILE_SECONDS)
            ways, about = self._prepared(planned, taking.ways, folder, ready_by, left_out)
            checks = self._checked(ways, left_out)
            ways = [way for way in ways if way.name in checks]
            states = [gpu_state()]
            turns = self._turns(ways, until, left_out)
            states.append(gpu_state())
        shares = self._shares([way for way in ways if turns[way.name]], until)
        names = [way.name for way in ways if turns[way.name]]
        if not names:
            raise RuntimeError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
        seconds = {name: [statistics.median(turn["seconds"]) for turn in turns[name]] for name in names}
        return planned.case.to_dict() | {
            "key": planned.case.key,
            "published": planned.published,
            "seconds": seconds,
            "peak_bytes": {name: turns[name][-1]["peak_bytes"] for name in names},
            "reserved_bytes": {name: turns[name][-1]["reserved_bytes"] for name in names},
            "rounds": {name: len(turns[name]) for name in names},
            "calls_a_turn": {name: len(turns[name][0]["seconds"]) for name in names},
            "ready_seconds": about,
            "differences": checks,
            "shares": shares,
            "roofline": self._roofline(planned, seconds),
            "ways": {way.name: asdict(way) for way in ways},
            "left_out": left_out,
            "states": states,
            "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            self._workers[name] = Worker(WORKER, self._given.device, self._given.precision)
        return self._workers[name]

    def _prepared(
        self, planned: Planned, ways: tuple[Way, ...], folder: str, ready_by: float, left_out: dict[str, str]
    ) -> tuple[list[Way], dict[str, float]]:
        """Let all get ready: the first alone, those that are compiled at the same time as the others.

        Several need more memory at once than one in its turn, so who fails tries again alone.
        """
        asked = {"case": planned.case.to_dict(), "folder": folder}
        about: dict[str, float] = {}

        def prepare(way: Way) -> None:
            self._worker(way.name).send("prepare", way=way.name, **asked)

        def collect(way: Way, deadline: float) -> None:
            left_out.pop(way.name, None)
            try:
                about[way.name] = self._worker(way.name).answer(deadline)["seconds"]
            except RuntimeError as error:
                self._lost(way, str(error), left_out)

        first, others = ways[0], ways[1:]
        for way in ways:  # Processes start while others do something.
            self._worker(way.name)
        prepare(first)
        collect(first, self._deadline)
        compiled = [way for way in others if way.is_compiled]
        for way in compiled:
            prepare(way)
        for way in others:
            if not way.is_compiled:
                prepare(way)
                collect(way, self._deadline)
        late = self._late(compiled, collect, min(ready_by, self._deadline), left_out)
        for way in ways:
            if way.name not in about and way not in late:
                prepare(way)
                collect(way, self._deadline)
        return [way for way in ways if way.name in about], about

    def _late(
        self,
        ways: list[Way],
        collect: Callable[[Way, float], None],
        ready_by: float,
        left_out: dict[str, str],
    ) -> list[Way]:
        """Wait for those that are compiled; return who was not in time."""
        late = []
        for way in ways:
            try:
                collect(way, ready_by)
            except OutOfTimeError:
                self._lost(way, "it was not compiled in time", left_out)
                late.append(way)
        return late

    def _lost(self, way: Way, why: str, left_out: dict[str, str]) -> None:
        left_out[way.name] = why
        self._workers.pop(way.name).close()

    def _checked(self, ways: list[Way], left_out: dict[str, str]) -> dict[str, float]:
        """Return how far the first losses, or the logits, are from those of the first way."""
        found: dict[str, float] = {}
        expected: list[float] = []
        for way in ways:
            try:
                values = self._worker(way.name).ask("check", deadline=self._deadline)["values"]
            except RuntimeError as error:
                self._lost(way, str(error), left_out)
                continue
            expected = expected or values
            found[way.name] = math.dist(values, expected) / max(math.hypot(*expected), 1e-30)
        return found

    def _turns(
        self, ways: list[Way], until: float, left_out: dict[str, str]
    ) -> dict[str, list[dict[str, Any]]]:
        turns: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
        calls = {way.name: 2 for way in ways}
        for number in range(self._given.rounds + 1):
            started = time.monotonic()
            for way in list(ways):
                try:
                    turn = self._worker(way.name).ask("time", deadline=self._deadline, calls=calls[way.name])
                except RuntimeError as error:
                    ways.remove(way)
                    self._lost(way, str(error), left_out)
                    continue
                except OutOfTimeError:
                    return turns
                if number:
                    turns[way.name].append(turn)
                else:  # What comes first is slower and says only how many calls a turn has.
                    calls[way.name] = min(max(round(TURN_SECONDS / turn["seconds"][-1]), 1), MOST_CALLS)
            taken = time.monotonic() - started
            if number >= FEWEST_ROUNDS and time.monotonic() + taken > until:
                break
        return turns

    def _shares(self, ways: list[Way], until: float) -> dict[str, Any]:
        """Return what kernels take, of as many ways as there is time for."""
        found: dict[str, Any] = {}
        for way in ways:
            now = time.monotonic()
            # At the limit a way may still be at what it was asked for before.
            if now > self._deadline or (found and now > until + LEAST_SECONDS):
                break
            try:
                found[way.name] = self._worker(way.name).ask("profile", deadline=self._deadline)
            except (RuntimeError, OutOfTimeError) as error:
                found[way.name] = {"error": str(error) or "out of time"}
        return found

    def _roofline(self, planned: Planned, seconds: dict[str, list[float]]) -> dict[str, Any]:
        """Return images a second that bandwidth and arithmetic allow, and the share that each way reaches."""
        case, roofs = planned.case, self._report["roofs"]
        spec = load_spec(case.network)
        cost, element = network_cost(spec, case.size), {"bf16": 2, "fp32": 4}[self._report["precision"]]
        if case.kind == "train":
            moved, macs = MODEL_BYTES // 2 * element * cost.activations, 3 * cost.macs
        else:  # Folded and fused: each output written once and read once.
            moved, macs = element * (2 * cost.activations + cost.params // case.batch), cost.macs
        by_bytes = roofs["bytes_per_second"] / moved
        by_arithmetic = roofs["flops_per_second"] / (2 * macs)
        rates = {name: case.batch / statistics.median(values) for name, values in seconds.items()}
        return {
            "params": cost.params,
            "macs": cost.macs,
            "activations": cost.activations,
            "bytes_an_image": moved,
            "images_per_second_by_bandwidth": by_bytes,
            "images_per_second_by_arithmetic": by_arithmetic,
            "images_per_second": rates,
            "share_of_bandwidth": {name: rate / by_bytes for name, rate in rates.items()},
            "share_of_arithmetic": {name: rate / by_arithmetic for name, rate in rates.items()},
        }


@contextmanager
def _folder() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="gpu-speed-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def gpu_state() -> dict[str, str]:
    """Return clocks, power and temperature at this moment; empty where there is no tool that tells."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return {}
    query = [tool, f"--query-gpu={_STATE}", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout
    values = said.partition("\n")[0].split(", ")
    return dict(zip(_STATE.split(","), values, strict=False))


def parsed(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu-speed.json")
    parser.add_argument("--minutes", type=float, default=9.0, help="the limit of everything together")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at most; the first does not count")
    parser.add_argument("--only", default="", help="words of the keys of cases, such as 'train v2-s 300px'")
    parser.add_argument(
        "--ways", default="", help="names with ; between; the first of ours always takes part"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--no-compile", dest="compiles", action="store_false", help="without torch.compile")
    parser.add_argument("--keep", action="store_true", help="what --out has of cases that are not measured")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that it works")
    arguments = parser.parse_args(given)
    if arguments.minutes < 1:
        parser.error(f"--minutes is {arguments.minutes:g}; give 1 or more")
    if arguments.device == "cuda" and not _has_gpu():
        parser.error("there is no CUDA device; --device cpu --quick checks this script without one")
    if arguments.device == "cpu":
        arguments.compiles = False
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, FEWEST_ROUNDS)
        if arguments.out == parser.get_default("out"):
            arguments.out = Path(tempfile.gettempdir()) / "gpu-speed-quick.json"
    return arguments


def _has_gpu() -> bool:
    import torch  # noqa: PLC0415 - without a context on the device

    return torch.cuda.device_count() > 0


def kept(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cases of an earlier call, which keep their own roofs."""
    if not (arguments.keep and arguments.out.exists()):
        return {}
    cases: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8"))["cases"]
    return cases


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure as much as the limit allows; everything is in the file after each case."""
    began = time.monotonic()
    deadline = began + 60 * arguments.minutes - RESERVE
    report: dict[str, Any] = {
        "environment": environment(),
        "processor": processor(),
        "versions": versions(*PACKAGES),
        "device": arguments.device,
        "precision": arguments.precision,
        "minutes": arguments.minutes,
        "state_before": gpu_state(),
        "cases": kept(arguments),
        "left_out": {},
    }
    bench = Bench(arguments, deadline, report)
    words = set(arguments.only.split())
    plan = [one for one in (QUICK if arguments.quick else PLAN) if words <= set(one.case.key.split())]
    try:
        report["roofs"] = bench.roofs()
        write_json(arguments.out, report)
        for number, planned in enumerate(plan):
            left = deadline - time.monotonic()
            if left < LEAST_SECONDS and number:
                report["left_out"][planned.case.key] = "no time was left"
                continue
            share = planned.weight / sum(one.weight for one in plan[number:])
            started = time.monotonic()
            try:
                report["cases"][planned.case.key] = bench.measure(planned, started + share * left)
            except OutOfTimeError:
                report["left_out"][planned.case.key] = "the limit was reached while it got ready"
            except RuntimeError as error:
                report["left_out"][planned.case.key] = str(error)
            report["state_after"], report["seconds"] = gpu_state(), time.monotonic() - began
            write_json(arguments.out, report)
            print(f"{planned.case.key}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    finally:
        bench.close()
    write_json(arguments.out, report)
    return report


if __name__ == "__main__":
    print(table(run(parsed())))

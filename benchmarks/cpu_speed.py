"""Training steps and answers of effnet beside timm, ONNX Runtime and OpenVINO, on a processor.

    make bench-cpu                       # everything, about half an hour at rest
    make bench-cpu ARGS="--quick"        # two cases, to see that it works
    make bench-cpu ARGS="--compile"      # torch.compile among the ways of both; minutes more for each network

Each way has a process of its own, which does its warm-up and then one turn a round, in the same order every
round, while the others wait; what is compared is divided within its round. A step is all of it: normalising
a uint8 batch, forward and backward pass, loss, optimizer and moving average, dropout and drop-path included.
Both libraries start from the same weights, and their losses over three steps, or their logits, must agree
before anything is timed. After each case all figures are in --out; a run that is interrupted goes on there.

With OMP_NUM_THREADS=1 the processor's time counts and not the wall's: a machine that others use as well tells
the same ratios then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from side_by_side.case import Case

from effnet.files import write_json
from effnet.training.journal import environment

HERE = Path(__file__).resolve().parent
NETWORKS = ("v1-b0", "v2-b0", "v2-s")
TRAIN = ("effnet", "timm", "timm channels last", "timm channels last, multi-tensor")
INFER = (
    "effnet",
    "effnet ONNX Runtime",
    "effnet OpenVINO",
    "timm",
    "timm channels last",
    "timm, ONNX Runtime",
    "timm, OpenVINO",
)
COMPILED = {"train": ("effnet compiled", "timm compiled"), "infer": ("timm compiled",)}
PACKAGES = ("effnet", "torch", "timm", "torchvision", "onnxruntime", "openvino", "numpy")
TOLERANCE = {"train": 1e-3, "infer": 1e-4}
"""Largest relative difference of a loss, or of logits from the largest logit of an image."""
TURN_SECONDS, MOST_CALLS = 0.4, 10
PAUSE = 0.05
"""For the threads of the last way to fall asleep."""


class Worker:
    """A way in its process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "side_by_side" / "worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer.

        Raises:
            RuntimeError: The way failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """Return all that is to be timed, training first."""
    cases = []
    for optimizer in arguments.optimizers.split(","):
        for network in arguments.networks.split(","):
            for size in arguments.train_sizes.split(","):
                cases.append(
                    Case(
                        kind="train",
                        network=network,
                        size=int(size),
                        batch=arguments.train_batch,
                        optimizer=optimizer,
                    )
                )
    for network in arguments.networks.split(","):
        for batch in arguments.infer_batches.split(","):
            cases.append(Case(kind="infer", network=network, size=arguments.infer_size, batch=int(batch)))
    return [case for case in cases if arguments.kind in {"both", case.kind}]


def difference(kind: str, answer: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return how far a way's check is from that of the first way."""
    if kind == "train":
        pairs = zip(answer["losses"], expected["losses"], strict=True)
        return max(abs(own - other) / abs(other) for own, other in pairs)
    from safetensors.numpy import load_file  # noqa: PLC0415

    own, other = (load_file(item["logits"])["logits"] for item in (answer, expected))
    return float((abs(own - other).max(1) / abs(other).max(1)).max())


def measure(case: Case, names: tuple[str, ...], workers: dict[str, Worker], rounds: int) -> dict[str, Any]:
    """Prepare, check and time one case."""
    folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    try:
        checks: dict[str, dict[str, Any]] = {}
        about: dict[str, dict[str, Any]] = {}
        for name in names:
            if name not in workers:
                workers[name] = Worker(name)
            about[name] = workers[name].ask(do="prepare", case=case.to_dict(), folder=str(folder))
            checks[name] = workers[name].ask(do="check")
        differences = {name: difference(case.kind, checks[name], checks[names[0]]) for name in names}
        for name, value in differences.items():
            if not value <= TOLERANCE[case.kind]:
                raise RuntimeError(f"{case.key}: {name} differs from {names[0]} by {value:.1e}")
        # What comes first is slower: pages, kernels, branch predictors.
        warm = {name: workers[name].ask(do="time", calls=2)["seconds"][-1] for name in names}
        calls = {name: min(max(round(TURN_SECONDS / warm[name]), 1), MOST_CALLS) for name in names}
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        loads = []
        for _ in range(rounds):
            loads.append(os.getloadavg()[0])
            for name in names:
                time.sleep(PAUSE)
                turns[name].append(workers[name].ask(do="time", calls=calls[name]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = {name: [statistics.median(turn["seconds"]) for turn in turns[name]] for name in names}
    return case.to_dict() | {
        "key": case.key,
        "seconds": seconds,
        "cpu_seconds": {name: [turn["cpu"] / len(turn["seconds"]) for turn in turns[name]] for name in names},
        "calls_a_turn": calls,
        "difference": differences,
        "losses": {name: check["losses"] for name, check in checks.items() if "losses" in check},
        "about": about,
        "load": loads,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of all that takes part."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu-speed.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--kind", choices=("both", "train", "infer"), default="both")
    parser.add_argument("--optimizers", default="rmsprop_tf,adamw")
    parser.add_argument("--train-sizes", default="128,224")
    parser.add_argument("--train-batch", type=int, default=16)
    parser.add_argument("--infer-size", type=int, default=224)
    parser.add_argument("--infer-batches", default="1,16")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, of both")
    parser.add_argument("--quick", action="store_true", help="V2-B0 at 64 px, one optimizer, three rounds")
    parser.add_argument("--afresh", action="store_true", help="forget what --out has")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.networks, arguments.optimizers, arguments.train_sizes = "v2-b0", "rmsprop_tf", "64"
        arguments.infer_size, arguments.infer_batches, arguments.rounds = 64, "1,16", 3
        if arguments.out == parser.get_default("out"):
            arguments.out = Path(tempfile.gettempdir()) / "cpu-speed-quick.json"
        arguments.afresh = True
    return arguments


def kept(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what an interrupted run has measured."""
    if arguments.out.exists() and not arguments.afresh:
        report: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8"))
        return report
    return {"environment": environment(), "versions": versions(), "rounds": arguments.rounds, "cases": {}}


def run(arguments: argparse.Namespace) -> None:
    """Measure all cases that are not in the file yet."""
    report = kept(arguments)
    workers: dict[str, Worker] = {}
    last = ""
    try:
        for case in cases_of(arguments):
            names = TRAIN if case.kind == "train" else INFER
            names += COMPILED[case.kind] if arguments.compile else ()
            have = report["cases"].get(case.key, {}).get("seconds", {})
            if set(names) <= set(have):
                continue
            if case.kind != last:
                close(workers)
            last, started = case.kind, time.monotonic()
            found = measure(case, names, workers, arguments.rounds)
            report["cases"][case.key] = found
            write_json(arguments.out, report)
            own = statistics.median(found["seconds"]["effnet"])
            told = ", ".join(
                f"{name} {statistics.median(values) / own:.2f}" for name, values in found["seconds"].items()
            )
            print(
                f"{case.key}: {own * 1e3:.0f} ms; times as long: {told} "
                f"[{time.monotonic() - started:.0f} s, load {max(found['load']):.1f}]",
                flush=True,
            )
    finally:
        close(workers)


def close(workers: dict[str, Worker]) -> None:
    """End all processes."""
    while workers:
        workers.popitem()[1].close()


if __name__ == "__main__":
    given = parsed()
    run(given)
    from side_by_side.page import write_page

    print(write_page(given.out))

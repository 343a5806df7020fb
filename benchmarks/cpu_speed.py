"""Training steps and answers on a processor, beside timm, torchvision, Keras, ONNX Runtime and OpenVINO.

    make bench-cpu                                  # everything, about half an hour at rest
    make bench-cpu ARGS="--quick"                   # two cases, to see that it works
    make bench-cpu ARGS="--only 'train v2-b0'"      # cases whose key has these words
    make bench-cpu ARGS="--compile"                 # torch.compile as well; minutes more for each network

Each way has a process of its own, which does its warm-up and then one turn a round, in the same order every
round, while the others wait; what is compared is divided within its round. `side_by_side.ways` says what a
step or a call is made of. All start from the same weights, and their losses over three steps, or their
logits, must agree before anything is timed (where an optimizer begins otherwise than TensorFlow's, the loss
before its first update). After each case all figures are in --out; an interrupted run goes on there.

With OMP_NUM_THREADS=1 the processor's time counts and not the wall's: a machine that others use as well tells
the same ratios then.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from side_by_side.case import Case
from side_by_side.power import free_bytes, processor, state
from side_by_side.process import Worker
from side_by_side.ways import Way, ways_of

from effnet.export.packages import versions
from effnet.files import write_json
from effnet.training.journal import environment

HERE = Path(__file__).resolve().parent
WORKER = HERE / "side_by_side" / "worker.py"
NETWORKS = ("v1-b0", "v2-b0", "v2-s")
PACKAGES = (
    "effnet",
    "torch",
    "numba",
    "timm",
    "torchvision",
    "keras",
    "tensorflow-cpu",
    "onnxruntime",
    "openvino",
    "numpy",
)
CHECKED_STEPS = 3
TOLERANCE = {
    ("train", "fp32"): 1e-3,
    ("infer", "fp32"): 1e-4,
    ("train", "bf16"): 2e-2,
    ("infer", "bf16"): 5e-2,
}
"""Largest relative difference of a loss, or of logits from the largest logit of an image; bf16 has 8 bits."""
TURN_SECONDS, MOST_CALLS = 0.4, 10
SHARE_OF_MEMORY = 0.7
"""Of what is free, that the ways of a case may keep between their turns."""
PAUSE = 0.05
"""For the threads of the last way to fall asleep."""


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """Return all that is to be timed, training first."""
    sizes = [int(size) for size in arguments.train_sizes.split(",")]
    networks = arguments.networks.split(",")
    cases = []
    for number, optimizer in enumerate(arguments.optimizers.split(",")):
        # What another optimizer changes does not depend on the size of the images.
        for network in networks:
            for size in sizes if number == 0 else [min(sizes)]:
                case = Case(
                    kind="train", network=network, size=size, batch=arguments.train_batch, optimizer=optimizer
                )
                cases.append(case)
    for network in networks:
        for batch in arguments.infer_batches.split(","):
            cases.append(Case(kind="infer", network=network, size=arguments.infer_size, batch=int(batch)))
    return [case for case in cases if set(arguments.only.split()) <= set(case.key.split())]


def difference(kind: str, answer: dict[str, Any], expected: dict[str, Any]) -> float:
    """Return how far a way's check is from what ours gives by the same conventions."""
    if kind == "train":
        own, other = (np.asarray(item["losses"]) for item in (answer, expected))
        return float((abs(own - other) / abs(other)).max())  # Not a number stays what it is.
    own, other = (load_file(item["logits"])["logits"] for item in (answer, expected))
    return float((abs(own - other).max(1) / abs(other).max(1)).max())


def check(worker: Worker, *, steps: int, conventions: str) -> dict[str, Any]:
    """Return a way's first losses, or where its logits are."""
    answer = worker.ask(do="check", steps=steps, conventions=conventions)
    worker.ask(do="rest")  # All together have no room for what each would keep.
    return answer


def checked(case: Case, ways: tuple[Way, ...], workers: dict[str, Worker]) -> dict[str, dict[str, Any]]:
    """Return how far each way's first losses or logits are from ours.

    Raises:
        RuntimeError: One is too far.
    """
    expected: dict[tuple[int, str], dict[str, Any]] = {}
    found = {}
    for way in ways:
        is_comparable = way.updates_alike or case.optimizer != "rmsprop_tf"
        steps = CHECKED_STEPS if is_comparable else 1
        # timm's names leave padding and batch norm as they are.
        conventions = way.library if way.library in {"torchvision", "keras"} else "effnet"
        if (steps, conventions) not in expected:
            expected[steps, conventions] = check(
                workers[ways[0].name], steps=steps, conventions=conventions
            )
        reference = expected[steps, conventions]
        answer = reference
        if way is not ways[0]:
            own = "effnet" if way.library == "effnet" else conventions
            answer = check(workers[way.name], steps=steps, conventions=own)
        value, tolerance = difference(case.kind, answer, reference), TOLERANCE[case.kind, way.precision]
        if not value <= tolerance:
            raise RuntimeError(f"{case.key}: {way.name} differs from {ways[0].name} by {value:.1e}")
        found[way.name] = {"difference": value, "tolerance": tolerance} | (
            {"losses": answer["losses"], "steps": steps} if case.kind == "train" else {}
        )
    return found


def turn(worker: Worker, calls: int, *, rests: bool) -> dict[str, Any]:
    """Let a way have its turn."""
    answer = worker.ask(do="time", calls=calls, is_rested=rests)
    if rests:
        worker.ask(do="rest")
    return answer


def measure(case: Case, ways: tuple[Way, ...], workers: dict[str, Worker], rounds: int) -> dict[str, Any]:
    """Prepare, check and time one case."""
    folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    names = [way.name for way in ways]
    try:
        about: dict[str, dict[str, Any]] = {}
        for way in ways:
            if way.name not in workers:
                workers[way.name] = Worker(WORKER, way.library, way.name)
            about[way.name] = workers[way.name].ask(do="prepare", case=case.to_dict(), folder=str(folder))
        checks = checked(case, ways, workers)
        peaks = {name: workers[name].ask(do="rest")["peak_bytes"] for name in names}
        # What a way keeps for its next turn, the others cannot have. Resting costs a call at each turn.
        rests = sum(peaks.values()) > SHARE_OF_MEMORY * free_bytes()
        # What comes first is slower: pages, kernels, graphs, branch predictors.
        warm = {name: turn(workers[name], 2, rests=rests)["seconds"][-1] for name in names}
        calls = {name: min(max(round(TURN_SECONDS / warm[name]), 1), MOST_CALLS) for name in names}
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        states = []
        for _ in range(rounds):
            states.append(state())
            for name in names:
                time.sleep(PAUSE)
                turns[name].append(turn(workers[name], calls[name], rests=rests))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return case.to_dict() | {
        "key": case.key,
        "seconds": {name: [statistics.median(turn["seconds"]) for turn in turns[name]] for name in names},
        "cpu_seconds": {name: [turn["cpu"] / len(turn["seconds"]) for turn in turns[name]] for name in names},
        "calls_a_turn": calls,
        "peak_bytes": peaks,
        "rests": rests,
        "checks": checks,
        "about": about,
        "states": states,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu-speed.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--only", default="", help="words of the keys of cases, such as 'train v2-b0 128px'")
    parser.add_argument("--ways", default="", help="names with ; between; ours always takes part")
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
    return {
        "environment": environment(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        # One thread is timed by the processor's clock, see `effnet.training.timing.fair_clock`.
        "clock": "processor" if torch.get_num_threads() == 1 else "wall",
        "onednn": next(iter(re.findall(r"MKL-DNN v([\d.]+)", torch.__config__.show())), None),
        "versions": versions(*PACKAGES),
        "rounds": arguments.rounds,
        "cases": {},
    }


def run(arguments: argparse.Namespace) -> None:
    """Measure all cases that are not in the file yet."""
    report = kept(arguments)
    workers: dict[str, Worker] = {}
    chosen = [name for name in arguments.ways.split(";") if name]
    last = ""
    try:
        for case in cases_of(arguments):
            ways, left_out = ways_of(case, compiled=arguments.compile, chosen=chosen)
            have = report["cases"].get(case.key, {}).get("seconds", {})
            if {way.name for way in ways} <= set(have):
                continue
            if case.kind != last:
                close(workers)
            last, started = case.kind, time.monotonic()
            about = {way.name: {"includes": way.includes, "precision": way.precision} for way in ways}
            found = measure(case, ways, workers, arguments.rounds)
            report["cases"][case.key] = found | {"ways": about, "left_out": left_out}
            write_json(arguments.out, report)
            print(f"{told(found)} [{time.monotonic() - started:.0f} s]", flush=True)
    finally:
        close(workers)


def told(found: dict[str, Any]) -> str:
    """Return a case in a line."""
    seconds = {name: statistics.median(values) for name, values in found["seconds"].items()}
    others = ", ".join(f"{name} {value / seconds['effnet']:.2f}" for name, value in seconds.items())
    load = max(state["load"] for state in found["states"])
    return f"{found['key']}: {seconds['effnet'] * 1e3:.0f} ms; times as long: {others}, load {load:.1f}"


def close(workers: dict[str, Worker]) -> None:
    """End all processes."""
    while workers:
        workers.popitem()[1].close()


if __name__ == "__main__":
    given = parsed()
    run(given)
    from side_by_side.table import table

    print(table(json.loads(given.out.read_text(encoding="utf-8"))))

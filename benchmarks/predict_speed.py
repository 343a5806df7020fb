"""How close ``effnet predict`` comes to a network that is given prepared pixels and computes nothing else.

    python benchmarks/predict_speed.py RUN PHOTOS... --rounds 5 --out FILE.json

Five ways take turns, in ABAB order, over the same images. What counts is the wall's clock;
the processors' time is told:

- ``predict``: what ``effnet predict --out`` does: list, read, decode, resize, compute, write the file.
- ``eager, all threads``: the network as it was loaded, channels last, each layer by all threads of torch;
  the bare forward pass that everybody would write.
- ``eager, one batch a thread``: the same network, one batch for each thread.
- ``folded, all threads`` and ``folded, one batch a thread``: batch norm folded. The latter is the form that
  predict itself uses, so that what is between the two is all that predict does beside computing.

The bare ways get all images as prepared, normalised tensors in memory, in the same batches; loading the
network and XX timed as well, with starting Python, loading the network and reading the list.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effnet.api import load, predict_to_file
from effnet.bench.measure import cpu_seconds
from effnet.data.listing import images_at
from effnet.data.loader import prepare_images
from effnet.data.reading import read_file
from effnet.data.threads import thread_count
from effnet.data.transforms import eval_image
from effnet.evaluation.predictor import Predictor
from effnet.files import write_json
from effnet.nn.folding import fold_norms
from effnet.training.journal import environment


def prepared(predictor: Predictor, names: Sequence[str], size: int) -> list[Tensor]:
    """Return all batches as the network wants them, in memory."""
    with ThreadPoolExecutor(thread_count(0)) as pool:
        views = list(
            pool.map(
                lambda name: torch.from_numpy(eval_image(read_file(name), predictor.preprocessing)), names
            )
        )
    batches = (torch.stack(views[start : start + size]) for start in range(0, len(views), size))
    return [prepare_images(batch, predictor.preprocessing, predictor.device) for batch in batches]


def all_threads(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Compute one batch after another, each by all threads."""
    with torch.inference_mode():
        for batch in batches:
            model(batch)


def one_batch_a_thread(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Compute as many batches at a time as there are processors."""

    @torch.inference_mode()
    def compute(batch: Tensor) -> None:
        torch.set_num_threads(1)
        model(batch)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(thread_count(0)) as pool:
        list(pool.map(compute, batches))
    torch.set_num_threads(threads)


class Seconds(NamedTuple):
    """How long something took."""

    wall: float
    cpu: float
    """Of all threads and of processes that it has started and that have ended."""


def turns(ways: dict[str, Callable[[], Seconds]], rounds: int) -> dict[str, list[Seconds]]:
    """Return the seconds of every way in every round, after one round that does not count."""
    seconds: dict[str, list[Seconds]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            taken = work()
            if number:
                seconds[name].append(taken)
            told = f"round {number} of {rounds}: {name}: {taken.wall:.2f} s, {taken.cpu:.2f} s of processors"
            print(told, file=sys.stderr, flush=True)
    return seconds


def timed(work: Callable[[], Any]) -> Callable[[], Seconds]:
    """Let a call return its seconds."""

    def run() -> Seconds:
        wall, cpu = time.perf_counter(), cpu_seconds()
        work()
        return Seconds(time.perf_counter() - wall, cpu_seconds() - cpu)

    return run


def ways_of(
    arguments: argparse.Namespace, folder: Path, predictor: Predictor, names: Sequence[str], size: int
) -> dict[str, Callable[[], Seconds]]:
    """Return all that takes turns; see the head of this file."""
    eager, folded = predictor.model, fold_norms(predictor.model)
    batches = prepared(predictor, names, size)
    out = folder / "answers.csv"

    def predict() -> None:
        predict_to_file(
            predictor, arguments.run, images_at(arguments.photos), out, batch_size=size, workers=0
        )

    def command() -> None:
        photos = [str(path) for path in arguments.photos]
        options = ["--out", str(out), "--batch-size", str(size)]
        subprocess.run(
            [sys.executable, "-m", "effnet", "predict", arguments.run, *photos, *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def afresh(work: Callable[[], None]) -> Callable[[], Seconds]:
        def run() -> Seconds:
            out.unlink(missing_ok=True)
            return timed(work)()

        return run

    ways = {
        "predict": afresh(predict),
        "eager, all threads": timed(lambda: all_threads(eager, batches)),
        "eager, one batch a thread": timed(lambda: one_batch_a_thread(eager, batches)),
        "folded, all threads": timed(lambda: all_threads(folded, batches)),
        "folded, one batch a thread": timed(lambda: one_batch_a_thread(folded, batches)),
    }
    return ways | ({"effnet predict, the whole command": afresh(command)} if arguments.processes else {})


def main() -> None:
    """Measure, print a table, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", help="run or file of weights")
    parser.add_argument("photos", nargs="+", type=Path, help="folders of photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="of all ways; default: what predict takes")
    parser.add_argument("--images", type=int, help="at most so many, of a list made for the purpose")
    parser.add_argument("--processes", action="store_true", help="also time whole commands")
    parser.add_argument("--out", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()

    predictor = load(arguments.run, device="cpu")
    size = arguments.batch_size or predictor.batch_size
    with TemporaryDirectory() as folder:
        if arguments.images:
            arguments.photos = list(map(Path, islice(images_at(arguments.photos).names, arguments.images)))
        names = list(images_at(arguments.photos).names)
        seconds = turns(ways_of(arguments, Path(folder), predictor, names, size), arguments.rounds)
    rates = {name: [len(names) / value.wall for value in values] for name, values in seconds.items()}
    report = {
        "environment": environment(),
        "run": arguments.run,
        "images": len(names),
        "image_size": predictor.preprocessing.image_size,
        "batch_size": size,
        "threads": torch.get_num_threads(),
        "images_per_second": rates,
        "cpu_ms_an_image": {
            name: [value.cpu / len(names) * 1e3 for value in values] for name, values in seconds.items()
        },
        "predict_to": {
            name: [own / other for own, other in zip(rates["predict"], values, strict=True)]
            for name, values in rates.items()
        },
    }
    if arguments.out:
        write_json(arguments.out, report)
    for name, values in rates.items():
        ratios = report["predict_to"][name]
        print(
            f"{name:36} {statistics.median(values):7.1f} images/s ({min(values):.1f} to {max(values):.1f}); "
            f"predict is {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of it"
        )


if __name__ == "__main__":
    main()

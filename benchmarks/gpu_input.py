"""Whether images or the network hold up training on a GPU: the loader alone, steps alone, and both together.

    python benchmarks/gpu_input.py PHOTOS                   # V2-S and V2-B0 at 128 px, from files and a store
    python benchmarks/gpu_input.py PHOTOS --set train.kernels=triton --minutes 3
    python benchmarks/gpu_input.py PHOTOS --device cpu --quick    # checks this script; its rates mean nothing

PHOTOS has some photos, in folders of their classes or not, such as those of `make_photos.py`. A folder for
training is made of them in which each is named many times (hard links), so they are read from memory, as on
a machine with enough of it. The first pass over them decodes each photo whole, later ones what a crop needs.

The loader alone: batches of the run's own loader, which nobody trains on. Steps alone: the run's own steps on
one batch that is on the device already. Together: `effnet train` itself, and the images a second and the
share of waiting for images that it records, behind its first epoch. The bottleneck is the slower one of the
loader (its later passes) and the steps. RandAugment is done on the device or by the loader's threads. Where
time is short, cases are left out from the end, which the report says; all figures are in --out after each.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_speed import gpu_state
from linked_photos import link_photos
from mistakes import mistakes_told

from effnet.api import configure, start_run
from effnet.config import Config
from effnet.data.copies import CopySettings, sides_for
from effnet.data.images import DataSplit
from effnet.data.prepare import prepare_store
from effnet.data.sources import open_configured
from effnet.errors import UserError
from effnet.export.packages import versions
from effnet.files import write_json
from effnet.schedule.progressive import StageSchedule
from effnet.training.batches import run_batches
from effnet.training.compiling import is_compiled
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.journal import environment, read_metrics
from effnet.training.preflight import release_memory, synchronize
from effnet.training.rehearsal import compile_stages
from effnet.training.step import initial_state, set_phase
from effnet.training.timing import time_steps
from effnet.training.window import REPORT_EVERY_STEPS

HERE = Path(__file__).resolve().parent
PACKAGES = ("effnet", "torch", "triton", "numpy", "simplejpeg", "opencv-python-headless")
SIZE = 128
LOADER_SECONDS, STEP_SECONDS, RUN_SECONDS = 3.0, 2.0, 5.0
FEWEST_STEPS, MOST_STEPS = 3 * REPORT_EVERY_STEPS, 15 * REPORT_EVERY_STEPS
"""Of a run that count, behind its first epoch."""
LONGEST_REASON = 300
LEAST_SECONDS = 12.0
"""No run is begun with less than that."""
SETTINGS = (
    "data.classes=0",
    "data.train_images=0",
    "progressive.stages=1",
    f"progressive.image_size=[{SIZE},{SIZE}]",
    "progressive.randaugment_magnitude=[5.0,5.0]",
    f"evaluate.image_size={SIZE}",
    "evaluate.batch_size=64",
    "evaluate.every_epochs=100000",
    "checkpoint.every_minutes=1000",
    "tracking.tensorboard=false",
)
"""V2-S as released in its first stage, without evaluation on the way."""


class Case(NamedTuple):
    """A run to be measured."""

    network: str
    source: str
    """``files``, or the encoding of a prepared store."""
    place: str
    """Where RandAugment is done."""

    @property
    def key(self) -> str:
        """What it is called in the results."""
        return " ".join(self)


class Bench:
    """One call of this script.

    Args:
        arguments: Of the command line.
        deadline: By `time.monotonic`.
        work: Folder of all that is made.
        report: Gets all figures.
    """

    def __init__(
        self, arguments: argparse.Namespace, deadline: float, work: Path, report: dict[str, Any]
    ) -> None:
        self._given, self._deadline, self._work, self._report = arguments, deadline, work, report
        self._images: dict[str, DataSplit] = {}

    def run(self) -> None:
        """Measure as much as the limit allows."""
        for case in cases(self._given):
            left = self._deadline - time.monotonic()
            if left < LEAST_SECONDS and self._report["runs"]:
                self._report["left_out"][case.key] = "no time was left"
                continue
            started = time.monotonic()
            try:
                self._measure(case)
            except UserError:
                raise  # It would be the same in every case.
            except Exception as error:
                traceback.print_exc()
                self._report["left_out"][case.key] = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            release_memory(torch.device(self._given.device))
            write_json(self._given.out, self._report)
            print(f"{case.key}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    def _measure(self, case: Case) -> None:
        """Measure a run, and what it consists of where that is not known yet."""
        loader_key, steps_key = f"{case.source} {case.place}", f"{case.network} {case.place}"
        images = self._opened(case.source)
        config = self._config(case, steps=1)
        experiment = prepare_experiment(config, data=images)
        loaders, steps = self._report["loader"], self._report["steps"]
        if loader_key not in loaders:
            loaders[loader_key] = time_loader(experiment, self._given.loader_seconds)
        if steps_key not in steps:
            steps[steps_key] = time_network(experiment, self._given.step_seconds)
        del experiment
        release_memory(torch.device(self._given.device))
        loader, network = loaders[loader_key]["later"], steps[steps_key]["images_per_second"]
        counted = self._given.run_seconds * min(loader, network) / self._given.batch
        counted = min(max(counted, self._given.fewest_steps), MOST_STEPS)
        warm = rounded_up(-(-len(images.train) // self._given.batch))
        # The last record is written behind the last step, together with the evaluation.
        config = self._config(case, steps=warm + rounded_up(counted))
        self._report["runs"][case.key] = case._asdict() | {
            "loader": loader,
            "steps": network,
            "bottleneck": "loader" if loader < network else "network",
            "run": self._trained(config, images, warm),
        }

    def _trained(self, config: Config, images: DataSplit, warm: int) -> dict[str, Any]:
        """Train, and return what the run recorded behind its first steps."""
        out = self._work / "run"
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        start_run(config, out, quiet=True, images=images)
        seconds = time.monotonic() - began
        if is_compiled(config):
            torch.compiler.reset()
        return recorded(read_metrics(out / "metrics.jsonl"), warm) | {"command_seconds": seconds}

    def _opened(self, source: str) -> DataSplit:
        if source not in self._images:
            folder = self._work / source
            if source != "files" and not folder.exists():
                self._prepare(source, folder)
            config = configure(folder, recipe="scratch", changes=["data.workers=1"])
            self._images[source] = open_configured(config.data)
        return self._images[source]

    def _prepare(self, encoding: str, out: Path) -> None:
        began = time.monotonic()
        sides = sides_for((SIZE,), SIZE)
        made = prepare_store(
            str(self._work / "files"),
            out,
            CopySettings(short_sides=sides, encoding=encoding),  # type: ignore[arg-type]
            workers=self._given.workers,
        )
        self._report["stores"][encoding] = {
            "short_sides": list(sides),
            "images": made.made,
            "bytes": made.bytes,
            "seconds": time.monotonic() - began,
        }

    def _config(self, case: Case, steps: int) -> Config:
        given, images = self._given, len(self._images[case.source].train)
        smaller = ("model.width=0.25", "model.depth=0.25") if given.quick else ()
        return configure(
            self._work / case.source,
            recipe="v2-s.release",
            model=case.network,
            changes=[
                *SETTINGS,
                *smaller,
                f"train.device={given.device}",
                f"train.batch_size={given.batch}",
                # Else a run would first find out how many images there is room for.
                f"train.micro_batch_size={given.batch}",
                f"train.epochs={(steps + 0.5) * given.batch / images}",
                f"data.workers={given.workers}",
                f"augment.place={case.place}",
                *given.changes,
            ],
        )


def cases(arguments: argparse.Namespace) -> list[Case]:
    """Return all runs, the most important first."""
    return [
        Case(network, source, place)
        for place, network, source in itertools.product(
            arguments.places.split(","), arguments.networks.split(","), arguments.sources.split(",")
        )
    ]


def rounded_up(steps: float) -> int:
    """Return as many steps as full records of the journal have."""
    return -(-round(steps) // REPORT_EVERY_STEPS) * REPORT_EVERY_STEPS


def time_loader(experiment: Experiment, seconds: float) -> dict[str, float]:
    """Return images a second that the loader alone prepares: in its first pass over the images, and later.

    Args:
        experiment: A run of one stage.
        seconds: That later passes take, about.
    """
    stage = experiment.schedule.stages[0]
    images, batch = len(experiment.data.train), stage.batch_size
    endless = replace(stage, start_step=0, end_step=1 << 30)
    schedule = StageSchedule((endless,), images, batch)
    first_steps = max(images // batch, 1)
    ends: list[float] = []
    began = time.monotonic()
    with closing(run_batches(experiment, schedule, seed=experiment.config.train.seed)) as batches:
        for _ in batches:
            ends.append(time.monotonic())
            later = ends[-1] - ends[first_steps - 1] if len(ends) > first_steps else 0.0
            if len(ends) >= first_steps + 2 and later >= seconds:
                break
    return {
        "first": first_steps * batch / (ends[first_steps - 1] - began),
        "later": (len(ends) - first_steps) * batch / later,
        "images": len(ends) * batch,
    }


def time_network(experiment: Experiment, seconds: float) -> dict[str, Any]:
    """Return images a second that training steps alone do, on a batch whose pixels are on the device.

    What is left of augmentation to the device is done in each step.

    Args:
        experiment: A run of one stage.
        seconds: That all steps take, about.
    """
    began = time.monotonic()
    state = initial_state(experiment)
    compile_stages(state, experiment, 0)
    set_phase(state, experiment, experiment.schedule.stages[0], is_head_only=False)
    with closing(run_batches(experiment, experiment.schedule, seed=0)) as batches:
        batch = next(batches)
    device = experiment.device
    batch = replace(batch, images=batch.images.to(device), labels=batch.labels.to(device))
    warm = time_steps(experiment, state, batch, steps=4)
    synchronize(device)
    ready = time.monotonic() - began
    steps = min(max(round(seconds / warm[-1]), 3), 200)
    taken = time_steps(experiment, state, batch, steps=steps)
    if is_compiled(experiment.config):
        torch.compiler.reset()
    middle = statistics.median(taken)
    return {
        "images_per_second": len(batch.images) / middle,
        "seconds_a_step": {"median": middle, "least": min(taken), "most": max(taken)},
        "timed": steps,
        "ready_seconds": ready,
        "precision": experiment.config.train.precision,
        "kernels": experiment.config.train.kernels,
        "compile": experiment.config.train.compile,
    }


def recorded(records: Sequence[dict[str, Any]], warm: int) -> dict[str, Any]:
    """Return what a run recorded behind its first steps.

    Args:
        records: Of its journal.
        warm: Steps that do not count.
    """
    windows = [record for record in records if "images_per_second" in record]
    before = {record["step"]: earlier["step"] for earlier, record in itertools.pairwise(windows)}
    counted = [record for record in windows if record["step"] > warm]
    images = [(r["step"] - before.get(r["step"], 0)) * r["batch_size"] for r in counted]
    seconds = [many / r["images_per_second"] for many, r in zip(images, counted, strict=True)]
    waited = sum(s * r["data_wait"] for s, r in zip(seconds, counted, strict=True))
    return {
        "images_per_second": sum(images) / sum(seconds),
        "data_wait": waited / sum(seconds),
        "images": sum(images),
        "seconds": sum(seconds),
        "first": windows[0]["images_per_second"],
    }


def table(report: dict[str, Any]) -> str:
    """Return all figures side by side."""
    loaded, waited = "loader alone, images/s (first pass)", "waiting for images"
    head = ("network", "reads", "RandAugment by", loaded, "steps alone", "both", waited, "bottleneck")
    rows = []
    for found in report["runs"].values():
        loader = report["loader"][f"{found['source']} {found['place']}"]
        rows.append(
            (
                found["network"],
                found["source"],
                found["place"],
                f"{loader['later']:,.0f} ({loader['first']:,.0f})",
                f"{found['steps']:,.0f}",
                f"{found['run']['images_per_second']:,.0f}",
                f"{found['run']['data_wait']:.1%}",
                found["bottleneck"],
            )
        )
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join([*lines, *(f"left out: {key}: {why}" for key, why in report["left_out"].items())])


def parsed(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu-input.json")
    parser.add_argument(
        "--work", type=Path, help="where a temporary folder is made; else where the system's are"
    )
    parser.add_argument("--networks", default="v2-s,v2-b0")
    parser.add_argument("--sources", default="files,jpeg", help="of files, jpeg, raw")
    parser.add_argument("--places", default="device,worker", help="where RandAugment is done")
    parser.add_argument("--batch", type=int, default=512, help="images a step")
    parser.add_argument("--workers", type=int, default=16, help="threads of the loader")
    parser.add_argument("--names", type=int, default=10_000, help="images of an epoch")
    parser.add_argument("--minutes", type=float, default=2.0, help="begin nothing that would take longer")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="change all runs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that it works")
    arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --quick checks this script without one")
    if not set(arguments.sources.split(",")) <= {"files", "jpeg", "raw"}:
        parser.error(f"--sources is {arguments.sources}; choose from files, jpeg and raw")
    arguments.loader_seconds, arguments.step_seconds = LOADER_SECONDS, STEP_SECONDS
    arguments.run_seconds, arguments.fewest_steps = RUN_SECONDS, FEWEST_STEPS
    if arguments.quick:
        arguments.batch, arguments.names, arguments.workers = 4, 16, 2
        arguments.loader_seconds = arguments.step_seconds = arguments.run_seconds = 0.0
        arguments.fewest_steps = REPORT_EVERY_STEPS
        if arguments.out == parser.get_default("out"):
            arguments.out = Path(tempfile.gettempdir()) / "gpu-input-quick.json"
    return arguments


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure; everything is in the file after each case."""
    began = time.monotonic()
    about = environment()
    report: dict[str, Any] = {
        "environment": about | {"command": [Path(word).name for word in about["command"]]},
        "versions": versions(*PACKAGES),
        "device": arguments.device,
        "batch": arguments.batch,
        "image_size": SIZE,
        "workers": arguments.workers,
        "changes": arguments.changes,
        "state_before": gpu_state(),
        "stores": {},
        "loader": {},
        "steps": {},
        "runs": {},
        "left_out": {},
    }
    with tempfile.TemporaryDirectory(prefix="gpu-input-", dir=arguments.work) as folder:
        report["data"] = link_photos(arguments.photos, Path(folder) / "files", arguments.names)
        Bench(arguments, began + 60 * arguments.minutes, Path(folder), report).run()
    report |= {"state_after": gpu_state(), "seconds": time.monotonic() - began}
    write_json(arguments.out, report)
    return report


if __name__ == "__main__":
    with mistakes_told():
        print(table(run(parsed())))

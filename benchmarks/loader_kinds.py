"""Images a second that the loader alone prepares, by threads and by processes, in turns.

    python benchmarks/loader_kinds.py PHOTOS                         # 2 and 16 workers, files and a store
    python benchmarks/loader_kinds.py PHOTOS --workers 16 --rounds 5 --out FILE

PHOTOS is a folder of class folders, of which a tenth is left out as validation images. It is read again and
again for --seconds a turn; the clock starts with the second pass, when all files are known to be whole and
processes have started. Beside the rates stand the milliseconds until the first batch, and the microseconds of
a processor that an image takes in the process that trains, threads included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from mistakes import mistakes_told

from effnet.config import AugmentConfig, DataConfig
from effnet.data.copies import CopySettings, sides_for
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.data.prepare import prepare_store
from effnet.data.sources import open_data
from effnet.files import write_json
from effnet.schedule.progressive import StageSchedule, StageSettings

SIZE, BATCH_SIZE = 128, 128
KINDS: tuple[Literal["threads", "processes"], ...] = ("threads", "processes")
ENDLESS = 1_000_000


def main() -> None:
    """Measure and print."""
    given = arguments()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        store = Path(work) / "store"
        prepare_store(str(given.photos), store, CopySettings(short_sides=sides_for([SIZE], SIZE)))
        for name, source in (("files", given.photos), ("store", store)):
            images = open_data(str(source), val_fraction=0.1, split_seed=0).train
            for workers in given.workers:
                rates: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
                for number in range(given.rounds):
                    for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
                        rates[kind].append(turn(images, kind, workers, given.seconds))
                for kind, turns in rates.items():
                    found[f"{name}, {workers} {kind}"] = turns
                    print(line(name, workers, kind, turns), flush=True)
    if given.out is not None:
        write_json(given.out, found)


Turn = dict[str, float]


def turn(images: LabelledImages, kind: Literal["threads", "processes"], workers: int, seconds: float) -> Turn:
    """Measure one way for some seconds."""
    stage = StageSettings(
        stage=0,
        start_step=0,
        end_step=ENDLESS,
        image_size=SIZE,
        batch_size=BATCH_SIZE,
        randaugment_magnitude=5.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        dropout_rate=0.0,
        drop_path_rate=0.0,
    )
    schedule = StageSchedule((stage,), len(images), BATCH_SIZE)
    data = DataConfig(workers=workers, worker_kind=kind)
    before = time.perf_counter()
    with closing(train_batches(images, schedule, data, AugmentConfig(), seed=0)) as batches:
        next(batches)
        first = time.perf_counter()
        for _ in range(-(-len(images) // BATCH_SIZE)):
            next(batches)
        count, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            count += len(next(batches).images)
        rate = count / (time.perf_counter() - started)
        own_us = 1e6 * (time.process_time() - busy) / count
    return {"images_per_second": rate, "first_ms": 1000 * (first - before), "own_us": own_us}


def line(source: str, workers: int, kind: str, turns: list[Turn]) -> str:
    """Return what to print of some turns."""
    rates = sorted(each["images_per_second"] for each in turns)
    first, own_us = (statistics.median(each[name] for each in turns) for name in ("first_ms", "own_us"))
    return (
        f"{source}, {workers:2} {kind:9}: {statistics.median(rates):6.0f} images/s "
        f"({rates[0]:.0f} to {rates[-1]:.0f}), first batch after {first:.0f} ms, {own_us:.0f} us here"
    )


def arguments() -> argparse.Namespace:
    """Return what is given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    with mistakes_told():
        main()

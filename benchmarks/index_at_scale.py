"""Open the index of a made store of ImageNet-21k's size, and shuffle it: seconds, and memory of the process.

    python benchmarks/index_at_scale.py [--images 12700000] [--repeats 5]

The index and the manifest are written as `effnet data prepare` would. The shards' files have their sizes but
no contents, since nothing reads them. Each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from effnet.arch.io import to_dict
from effnet.data.arrow_files import INDEX_ROWS, INDEX_SCHEMA
from effnet.data.filling import EXPECTED_SAMPLES
from effnet.data.order import sample_order
from effnet.data.shards import MOST_IMAGES, write_table
from effnet.data.store import (
    MANIFEST,
    StoreFile,
    StoreManifest,
    StoreShard,
    StoreSplit,
    open_store,
)

CLASSES, SIDES, COPY_BYTES = 21_841, (160, 240, 320, 400), 20_000


def make_store(path: Path, images: int) -> None:
    """Write a store whose images are not there."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(CLASSES, size=images)).astype(np.int32)
    class_names = tuple(f"n{number:08}" for number in range(CLASSES))
    names = pa.array(
        (f"n{label:08}/n{label:08}_{i}.JPEG" for i, label in enumerate(labels)), pa.large_string()
    )
    sizes = rng.integers(200, 600, size=(2, images)).astype(np.int32)
    table = pa.table([labels, names, sizes[0], sizes[1]], schema=INDEX_SCHEMA)
    index = write_table(path / "train-index.arrow", table.to_batches(INDEX_ROWS))
    shards = []
    for number, start in enumerate(range(0, images, MOST_IMAGES)):
        count = min(MOST_IMAGES, images - start)
        levels = {}
        for side in SIDES:
            name = f"train-{number:05}-{side}.arrow"
            with (path / name).open("wb") as file:
                file.truncate(count * COPY_BYTES)
            digest = hashlib.sha256(name.encode()).hexdigest()
            levels[side] = StoreFile(file=name, bytes=count * COPY_BYTES, sha256=digest)
        shards.append(StoreShard(images=count, levels=levels))
    manifest = StoreManifest(
        encoding="jpeg",
        quality=90,
        chroma="420",
        short_sides=SIDES,
        class_names=class_names,
        source="made",
        splits={"train": StoreSplit(images=images, index=index, shards=tuple(shards))},
    )
    (path / MANIFEST).write_text(json.dumps(to_dict(manifest)))


def measure(path: Path) -> dict[str, float]:
    """Open the store and shuffle its images, as the loader does."""
    imported = _peak_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    images, _ = open_store(path)
    opened = time.perf_counter()
    order = sample_order(0, 0, EXPECTED_SAMPLES, images=len(images))
    some = [(images.labels[index], images.read(index)) for index in order.tolist()]
    names = images.names[:EXPECTED_SAMPLES]
    done = time.perf_counter()
    return {
        "images": len(images),
        "open_s": opened - started,
        "shuffle_s": done - opened,
        "both_cpu_s": time.process_time() - cpu,
        "imports_bytes": imported,
        "peak_bytes": _peak_bytes(),
        "looked_up": len(some) + len(names),
    }


def _peak_bytes() -> int:
    """Return the most memory that this process had at a time, mapped files included; Linux only."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Make the store, and measure in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=12_700_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store:
        print(json.dumps(measure(arguments.store)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder), arguments.images)
        command = [sys.executable, __file__, "--store", folder]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(arguments.repeats)]
    for key in ("open_s", "shuffle_s", "both_cpu_s", "imports_bytes", "peak_bytes"):
        values = [run[key] for run in runs]
        unit = 1e6 if key.endswith("bytes") else 1
        print(
            f"{key.replace('bytes', 'MB')}: median {statistics.median(values) / unit:.2f}, "
            f"{min(values) / unit:.2f} to {max(values) / unit:.2f}, n = {len(values)}"
        )


if __name__ == "__main__":
    main()

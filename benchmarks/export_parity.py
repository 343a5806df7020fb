"""Whether exported files answer like their networks, how large they are, and how fast beside PyTorch.

    python benchmarks/export_parity.py WORK --run v2-b0=RUN --run v1-b0=RUN --int8 v2-b0 --out result.json
    python benchmarks/export_parity.py WORK --fresh v2-s --check flowers/val --out result.json

Every run is exported at every size to every form in fp32, and compared on all images that it held out;
those under --int8 also in int8, for each choice of layers that stay in floating point. Files are timed in
turns with PyTorch, with as many threads as it has. WORK gets the files; what was measured goes to the last
line as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

# Threads that spin at barriers starve those that decode images; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from effnet.api import export
from effnet.arch import network, released_preprocessing
from effnet.export.card import Precision
from effnet.export.parity import RefusedExportError
from effnet.export.settings import ExportSettings
from effnet.nn import build_model
from effnet.weights import save_weights

FORMS = ("onnx", "openvino", "pt2", "executorch")
FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
KEEPS = ("none", "se", "ends+se")


def measured(
    run: str,
    folder: Path,
    forms: list[str],
    precision: Precision,
    settings: ExportSettings,
    *,
    check: str | None = None,
) -> list[dict[str, Any]]:
    """Export a run and return what was found, also where a file was refused."""
    start = time.perf_counter()
    try:
        found = export(
            run, folder, to=forms, precisions=(precision,), settings=settings, check=check, check_images=0
        )
    except RefusedExportError as error:
        print(f"{folder}: {error}", file=sys.stderr, flush=True)
        return [{"refused": str(error)}]
    entries = [{**item.to_dict(), "keep": settings.keep} for item in found]
    print(f"{folder}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    for entry in entries:
        times = entry["latency"]
        print(
            f"  {entry['form']} {entry['precision']}: difference {entry['max_relative_difference']:.1e}, "
            f"same top-1 {entry['top1_agreement']:.2%}, top-1 {entry['top1']:.2%} "
            f"(PyTorch {entry['network_top1']:.2%}), {times['median_ms']:.1f} ms, "
            f"{entry['times_as_fast']:.2f} times as fast",
            file=sys.stderr,
            flush=True,
        )
    return entries


def write_fresh(name: str, folder: Path) -> str:
    """Write a network with the weights that it is initialised with, for the classes of the flowers."""
    torch.manual_seed(0)
    spec = replace(network(name), num_classes=len(FLOWERS))
    path = folder / f"fresh-{name}.safetensors"
    save_weights(
        path,
        build_model(spec).state_dict(),
        spec,
        class_names=FLOWERS,
        preprocessing=released_preprocessing(spec),
        provenance="initialised, seed 0",
    )
    return str(path)


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--fresh", action="append", default=[], help="a network as it is initialised, seed 0")
    parser.add_argument("--check", help="images for networks without a run")
    parser.add_argument("--sizes", default="192,224")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--int8", action="append", default=[], metavar="NAME")
    parser.add_argument("--int8-size", type=int, default=192)
    parser.add_argument("--int8-forms", default="onnx,openvino,executorch")
    parser.add_argument("--keeps", default=",".join(KEEPS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = dict(item.split("=", 1) for item in arguments.run)
    arguments.work.mkdir(parents=True, exist_ok=True)
    runs |= {f"fresh {name}": write_fresh(name, arguments.work) for name in arguments.fresh}
    forms, sizes = arguments.forms.split(","), [int(size) for size in arguments.sizes.split(",")]
    result: dict[str, Any] = {
        "command": sys.argv,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "fp32": {},
        "int8": {},
    }
    for name, run in runs.items():
        for size in sizes:
            folder = arguments.work / f"{name.replace(' ', '-')}-{size}"
            settings = ExportSettings(image_size=size)
            check = None if Path(run).is_dir() else arguments.check
            result["fp32"][f"{name} {size}"] = measured(run, folder, forms, "fp32", settings, check=check)
    for name in arguments.int8:
        for keep in arguments.keeps.split(","):
            folder = arguments.work / f"{name}-int8-{keep}"
            settings = ExportSettings(image_size=arguments.int8_size, keep=keep, max_drop=1.0)
            found = measured(runs[name], folder, arguments.int8_forms.split(","), "int8", settings)
            result["int8"][f"{name} {arguments.int8_size} {keep}"] = found
    text = json.dumps(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

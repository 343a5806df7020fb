"""What a prepared store does to accuracy: the same runs from the original files and from stores.

    python benchmarks/store_accuracy.py shared/data/flower_photos WORK --weights WEIGHTS --seeds 3

V2-B0, from scratch at half width and depth, and fine-tuned from WEIGHTS. Every run from the original files
has its twins of the same seed, from a store of JPEG files and from one of pixels. WORK gets the stores and
the runs; given again, the command goes on where it was stopped. What it prints, as JSON, is the validation
top-1 of every run, mean and sample standard deviation of each arm, and those of the differences of twins.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from effnet.api import train
from effnet.data.copies import CopySettings
from effnet.data.prepare import prepare_store
from effnet.data.store import Encoding

SCRATCH = (
    "model.width=0.5",
    "model.depth=0.5",
    "train.epochs=30",
    "train.batch_size=32",
    "learning_rate.base=8e-3",
    "learning_rate.warmup_epochs=2",
    "ema.decay=0.99",
    "evaluate.every_epochs=7.5",
    "progressive.stages=4",
    "progressive.image_size=[64,128]",
    "progressive.randaugment_magnitude=[2,6]",
    "progressive.mixup_alpha=[0.0,0.1]",
    "progressive.dropout_rate=[0.0,0.2]",
    "progressive.drop_path_rate=[0.0,0.1]",
)
SIDES = {"scratch": (80, 104, 136, 160), "finetune": (240, 280)}
"""Short sides of the stores' copies, for the stages and the evaluation of each recipe."""
STORES: dict[str, Encoding] = {"store": "jpeg", "pixels": "raw"}
"""What the copies of each arm are, but for that of the original files."""


def accuracy(recipe: str, source: Path, out: Path, seed: int, arguments: argparse.Namespace) -> float:
    """Train, or go on training, and return the validation top-1 of the moving average at the last step."""
    usual = SCRATCH if recipe == "scratch" else ()
    result = train(
        source,
        recipe=recipe,
        model="v2-b0",
        weights=arguments.weights if recipe == "finetune" else None,
        out=out,
        changes=[*usual, f"train.seed={seed}", *arguments.changes],
        resume="auto",
        quiet=True,
    )
    return result.val_top1


def summary(values: list[float]) -> dict[str, Any]:
    """Return values, their mean and their sample standard deviation; of one value it is 0."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"values": values, "mean": statistics.mean(values), "deviation": deviation}


def compare(recipe: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all arms of a recipe, seed by seed."""
    sources = {"files": arguments.data}
    for arm, encoding in STORES.items():
        sources[arm] = arguments.work / f"{arm}-{recipe}"
        prepare_store(
            str(arguments.data), sources[arm], CopySettings(short_sides=SIDES[recipe], encoding=encoding)
        )
    arms: dict[str, list[float]] = {arm: [] for arm in sources}
    for seed in range(arguments.seeds):
        for arm, source in sources.items():
            out = arguments.work / f"{recipe}-{arm}-{seed}"
            top1 = accuracy(recipe, source, out, seed, arguments)
            arms[arm].append(top1)
            print(json.dumps({"recipe": recipe, "arm": arm, "seed": seed, "top1": top1}), flush=True)
    differences = {
        f"{arm} - files": [
            of_store - of_files for of_files, of_store in zip(arms["files"], arms[arm], strict=True)
        ]
        for arm in STORES
    }
    return {name: summary(values) for name, values in (arms | differences).items()}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train and val, of class folders")
    parser.add_argument("work", type=Path, help="folder for stores and runs")
    parser.add_argument("--weights", type=Path, help="of V2-B0, to fine-tune; without it, only from scratch")
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="change all runs")
    arguments = parser.parse_args()
    recipes = ["scratch", "finetune"] if arguments.weights else ["scratch"]
    print(json.dumps({recipe: compare(recipe, arguments) for recipe in recipes}, indent=1))


if __name__ == "__main__":
    main()

"""Whether a search was worth it: its winner beside networks of the published shape, trained alike.

    python benchmarks/search_winner.py DATA STUDY WORK --seeds 3 --set train.epochs=8 --out result.json

STUDY is the folder of a search. The opponents are the network that the search began with, and the published
network scaled in width and depth until its training step takes as long as the winner's: of the grid of
coefficients, the quickest one that is not quicker. Steps are measured beside the backbone, in turns. All are
trained from scratch by the search's own recipe, but on the data's own splits, so that the images by which
they are judged took no part in the search. WORK gets the runs; given again, the command goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from effnet.arch.accounting import network_cost
from effnet.arch.io import load_spec, spec_to_json
from effnet.arch.scaling import scale
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.data.sources import absolute_source
from effnet.recipes import config_to_toml, resolve_config
from effnet.runs import PlannedRun, do_runs, sole_user
from effnet.search.rules import load_space
from effnet.search.step_time import StepTime, measure_step
from effnet.search.turns import Budget
from effnet.training.experiment import Experiment, prepare_experiment

WIDTHS = (0.15, 0.2, 0.25, 0.3, 0.4)
DEPTHS = (0.1, 0.2, 0.35)


def matched(
    experiment: Experiment, published: NetworkSpec, reference: NetworkSpec, ratio: float, seconds: float
) -> tuple[NetworkSpec, StepTime]:
    """Return the published network scaled to the time of a step, at least ``ratio`` times the reference's."""
    seen: dict[object, NetworkSpec] = {}
    for width in WIDTHS:
        for depth in DEPTHS:
            spec = scale(published, width=width, depth=depth)
            seen.setdefault((spec.stages, spec.stem_channels, spec.head_channels), spec)
    measured = [
        (spec, measure_step(experiment, spec, reference, Budget(seconds=seconds))) for spec in seen.values()
    ]
    for spec, step in measured:
        print(f"{spec.name}: {step.ratio:.3f} +- {step.ratio * step.spread:.3f}", file=sys.stderr)
    slower = [pair for pair in measured if pair[1].ratio >= ratio]
    return min(slower, key=lambda pair: pair[1].ratio)


def summary(values: list[float]) -> dict[str, Any]:
    """Return values, their mean and their sample standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"values": values, "mean": statistics.fmean(values), "deviation": spread}


def main() -> None:
    """Measure, train, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("study", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--space", default="small")
    parser.add_argument("--published", default="v2-b0.stride8")
    parser.add_argument("--recipe", default="search")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--step-seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    settings = ("data.minival_fraction=0", *arguments.changes)
    source = absolute_source(arguments.data)
    config: Config = resolve_config(arguments.recipe, settings, values={"data.source": source})
    experiment = prepare_experiment(replace(config, data=replace(config.data, resident=False)))
    reference = load_space(arguments.space).backbone
    winner = load_spec(str(arguments.study / "best.json"))
    budget = Budget(seconds=4 * arguments.step_seconds)
    step = measure_step(experiment, winner, reference, budget)
    print(f"winner {winner.name}: {step.ratio:.3f}", file=sys.stderr)
    published = load_spec(arguments.published)
    opponent, opponent_step = matched(experiment, published, reference, step.ratio, arguments.step_seconds)
    # The chosen one was the quickest of those that seemed slow enough; once more, and for longer.
    opponent_step = measure_step(experiment, opponent, reference, budget)
    networks = {"winner": (winner, step), "equal step": (opponent, opponent_step)}
    networks["backbone"] = (reference, measure_step(experiment, reference, reference, budget))

    arguments.work.mkdir(parents=True, exist_ok=True)
    planned = []
    for seed in range(arguments.seeds):
        for name, (spec, _) in networks.items():
            path = arguments.work / f"{name.replace(' ', '-')}.json"
            path.write_text(spec_to_json(spec), encoding="utf-8")
            network = (f"model.network={path.resolve()}", "model.width=1", "model.depth=1")
            folder = arguments.work / name.replace(" ", "-") / f"seed-{seed}"
            run = PlannedRun(
                name=f"{name}, seed {seed}",
                data=source,
                settings=(*settings, *network, f"train.seed={seed}"),
                run=folder,
            )
            planned.append(run.with_result())
    recipe_path = arguments.work / "recipe.toml"
    with sole_user(arguments.work) as lock:
        recipe_path.write_text(config_to_toml(resolve_config(arguments.recipe)), encoding="utf-8")
        waiting = [run for run in planned if run.result is None]
        ended = {
            run.run: run
            for run in do_runs(
                waiting,
                recipe_path,
                jobs=arguments.jobs,
                lock=lock,
                announce=lambda text: print(text, file=sys.stderr),
            )
        }
    done = [ended.get(run.run, run) for run in planned]
    rows = {}
    for name, (spec, timed) in networks.items():
        results = [run.result for run in done if run.name.startswith(f"{name},") and run.result]
        rows[name] = {
            "network": spec.name,
            "params": network_cost(spec).params,
            "step_ratio": timed.ratio,
            "step_ratio_error": timed.ratio * timed.spread,
            "top1": summary([result["val_top1"] for result in results]),
            "step_seconds": summary([result["step_seconds"] for result in results]),
        }
    answer = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "seeds": arguments.seeds,
        "changes": arguments.changes,
        "networks": rows,
    }
    arguments.out.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()

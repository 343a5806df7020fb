"""``effnet tune``: measure which loader settings are fastest on this machine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from effnet.cli.output import duration, print_json, print_table
from effnet.cli.training import (
    DataArgument,
    JsonOption,
    ModelOption,
    RecipeOption,
    SetOption,
    WeightsOption,
)

if TYPE_CHECKING:
    from effnet.training.tune import PlaceSpeed, StageSpeed, Tuning


def tune(
    data: DataArgument = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    changes: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure every stage's training steps and loader on this machine, and say what to set.

    Takes a few seconds a stage, more where single steps do. Nothing is written.
    """
    from effnet.api import configure, tune_run

    config = configure(data, recipe=recipe, model=model, weights=weights, changes=changes or ())
    tuning = tune_run(config, report=lambda text: typer.echo(f"measuring {text}", err=True))
    if as_json:
        print_json(tuning.to_dict())
    else:
        _print_tuning(tuning, config.data.source)


def _print_tuning(tuning: Tuning, source: str) -> None:
    threads = sorted({count for speed in tuning.places for stage in speed.stages for count in stage.loader})
    by_threads = [f"{count} thread{'s' * (count > 1)}" for count in threads]
    print_table(
        ("augment.place", "stage", "size", "batch", "network", *by_threads, "together", "wait", "bottleneck"),
        [_row(speed, stage, threads) for speed in tuning.places for stage in speed.stages],
        title="images a second: the network alone, the loader alone, both together",
    )
    typer.echo("")
    for speed in tuning.places:
        typer.echo(
            f"augment.place={speed.place} with data.workers={speed.workers}: "
            f"{duration(speed.seconds)} of training steps"
        )
    typer.echo(f"fastest: {' '.join(f'--set {change}' for change in tuning.changes)}")
    fastest = tuning.fastest
    bound = [str(stage.settings.stage + 1) for stage in fastest.stages if fastest.is_loader_bound(stage)]
    if bound:
        typer.echo(f"the loader is the bottleneck of stage {', '.join(bound)}{_remedy(tuning, source)}")


def _row(speed: PlaceSpeed, stage: StageSpeed, threads: list[int]) -> list[str]:
    return [
        speed.place,
        str(stage.settings.stage + 1),
        f"{stage.settings.image_size} px",
        str(stage.measured_batch_size),
        f"{stage.network:.1f}",
        *(f"{stage.loader[count]:.0f}" if count in stage.loader else "" for count in threads),
        f"{stage.together:.1f}",
        f"{stage.data_wait:.0%}",
        "loader" if speed.is_loader_bound(stage) else "network",
    ]


def _remedy(tuning: Tuning, source: str) -> str:
    if not tuning.short_sides:
        return ""
    sides = ",".join(map(str, tuning.short_sides))
    return (
        "; smaller copies of the images are read faster:\n"
        f"  effnet data prepare {shlex.quote(source)} --out STORE --short-sides {sides}"
    )

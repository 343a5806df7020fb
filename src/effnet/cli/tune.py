"""``effnet tune``: measure which settings are fastest on this machine, and keep them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

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
    from effnet.training.batch_sizes import BatchSpeed
    from effnet.training.compute import Candidate, ComputeTuning
    from effnet.training.thread_tuning import ThreadTuning
    from effnet.training.tune import PlaceSpeed, StageSpeed, Tuning


def tune(
    data: DataArgument = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    changes: SetOption = None,
    compiles: Annotated[
        bool, typer.Option("--compile", help="Measure compiled networks too; each takes minutes on a CPU.")
    ] = False,
    keeps: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Let runs that say `auto` use what is found.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure every stage's training steps and loader on this machine, and keep what is fastest.

    Takes some ten seconds a stage, more where single steps do. `effnet train` then uses what was found
    wherever its configuration says `auto`, as it does by default. Without DATA, a recipe that knows how many
    images it has is measured on noise, and the loader is not.
    """
    from effnet.api import configure
    from effnet.api import tune as tune_run

    config = configure(data, recipe=recipe, model=model, weights=weights, changes=changes or ())
    tuning = tune_run(
        config,
        has_data=data is not None or not config.data.train_images,
        compiles=compiles,
        keeps=keeps,
        report=lambda text: typer.echo(f"measuring {text}", err=True),
    )
    if as_json:
        print_json(tuning.to_dict())
        return
    _print_compute(tuning.compute)
    _print_batches(tuning.batches)
    typer.echo("")
    if tuning.loader is not None:
        _print_loader(tuning.loader, config.data.source)
    if tuning.threads is not None:
        _print_threads(tuning.threads)
    typer.echo(f"fastest: {' '.join(f'--set {change}' for change in tuning.changes)}")
    if tuning.kept:
        typer.echo(
            "effnet train uses them wherever its configuration says `auto`, or 0 for a number; kept in"
        )
    for path in tuning.kept:
        typer.echo(f"  {path}")
    typer.echo(f"measured in {duration(tuning.seconds)}")


def _print_compute(tuning: ComputeTuning) -> None:
    sizes = [f"{stage.settings.image_size} px" for stage in tuning.fastest.stages]
    print_table(
        ("", "kernels", "memory format", "precision", "compile", *sizes, "ratio", "steps", "start"),
        [_compute_row(candidate, len(sizes), tuning) for candidate in tuning.candidates],
        title="images a second of training steps, by the way they are computed",
    )
    if any(candidate.compute.is_compiled for candidate in tuning.candidates):
        typer.echo("the start counts where the network is compiled, which every run does anew")
    for candidate in tuning.candidates:
        if candidate.failure:
            typer.echo(f"{candidate.compute} failed: {candidate.failure}")
    if tuning.precision_gain:
        typer.echo(_precision_text(tuning))


def _precision_text(tuning: ComputeTuning) -> str:
    """Say what the choice of precision brings; it is the one choice that changes results."""
    from effnet.training.ways import PRECISION_GAIN

    chosen, gain = tuning.fastest.compute.precision, tuning.precision_gain
    if gain < 1:
        other = "fp32" if chosen == "bf16" else "bf16"
        return (
            f"{other} is {1 / gain:.2f} times as fast as {chosen}: not taken, as it changes results and is "
            f"not {PRECISION_GAIN:g} times as fast"
        )
    text = f"{chosen} is {gain:.2f} times as fast as any other precision"
    if chosen == "fp32":
        return text
    text += "; it changes results by its rounding, which train.precision=fp32 avoids"
    if tuning.about["device"] == "cpu":
        text += (
            "; whether it trains as well on a processor is open: of two seeds one ended with a higher loss "
            "(docs/log.md)"
        )
    return text


def _print_batches(speeds: tuple[BatchSpeed, ...]) -> None:
    typer.echo("")
    for speed in speeds:
        by_count = ", ".join(f"{count}: {rate:.1f}" for count, rate in speed.images_per_second.items())
        typer.echo(
            f"images a second at {speed.image_size} px by images at once: {by_count}; "
            f"{speed.smallest_fast} are enough"
        )


def _compute_row(candidate: Candidate, stages: int, tuning: ComputeTuning) -> list[str]:
    compute = candidate.compute
    row = [
        "*" if candidate is tuning.fastest else "",
        compute.kernels,
        compute.memory_format,
        compute.precision,
        compute.compile,
    ]
    if not candidate.stages:
        return [*row, *["failed"] * stages, "", "", ""]
    return [
        *row,
        *(f"{stage.images_per_second:.1f}" for stage in candidate.stages),
        f"{candidate.speedup:.2f}",
        duration(candidate.step_seconds),
        duration(candidate.first_seconds),
    ]


def _print_loader(tuning: Tuning, source: str) -> None:
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
    fastest = tuning.fastest
    bound = [str(stage.settings.stage + 1) for stage in fastest.stages if fastest.is_loader_bound(stage)]
    if bound:
        typer.echo(f"the loader is the bottleneck of stage {', '.join(bound)}{_remedy(tuning, source)}")


def _print_threads(tuning: ThreadTuning) -> None:
    typer.echo("")
    typer.echo(
        f"images a second at {tuning.image_size} px, by the threads that compute and that prepare images"
    )
    print_table(
        ("", "train.threads", "data.workers", "together"),
        [
            [
                "*" if speed == tuning.fastest else "",
                str(speed.threads),
                str(speed.workers),
                f"{speed.images_per_second:.1f}",
            ]
            for speed in tuning.speeds
        ],
    )


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

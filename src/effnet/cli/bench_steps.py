"""``effnet bench step-time`` and ``effnet bench fused``: training steps, measured and predicted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.output import print_json, print_table
from effnet.cli.training import JsonOption, SetOption
from effnet.errors import UserError
from effnet.files import write_json

if TYPE_CHECKING:
    from effnet.search.fused_order import FusedStep
    from effnet.search.prediction_error import MeanAndSpread, PredictionError
    from effnet.training.experiment import Experiment

RecipeOption = Annotated[str, typer.Option(help="Whose optimizer, average, batch and precision count.")]
SizeOption = Annotated[int, typer.Option(min=8, max=2048, help="Image size in pixels.")]
SecondsOption = Annotated[float, typer.Option(min=0.1, help="For each comparison of two networks.")]
OutOption = Annotated[Path | None, typer.Option(help="Write all figures to this file, as JSON.")]

_PAPER = """2104.00298 table 3 (V1-B4 at 380 px), images/s without, with 1-3, 1-5 and 1-7 fused:
262, 362, 327, 254 on a TPUv3 core, 155, 216, 223, 206 on a V100"""


def step_time(
    space: Annotated[str, typer.Option(help="Space whose networks are measured and predicted.")] = "small",
    table: Annotated[
        Path | None, typer.Option(help="Predict the training times of this table instead (Accel-NASBench).")
    ] = None,
    fitted: Annotated[int, typer.Option(min=10, help="Networks that the predictor learns from.")] = 30,
    held_out: Annotated[int, typer.Option(min=2, help="Networks of the space that it predicts.")] = 30,
    size: SizeOption = 32,
    images: Annotated[int, typer.Option(min=1, help="In a step.")] = 32,
    recipe: RecipeOption = "scratch",
    seconds: SecondsOption = 3.0,
    changes: SetOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far predicted training steps are off, on networks that took no part in the fit.

    Random networks of a space are measured in turns with its backbone. With --table, networks that others
    have trained are predicted, all but those that are fitted.
    """
    from effnet.search import prediction_error as errors
    from effnet.search.predictor import Measured
    from effnet.search.rules import load_space
    from effnet.search.turns import Budget

    _check_out(out)
    if table is not None:
        measured = errors.training_times(table)
        if len(measured) < fitted + 2:
            raise UserError(f"--fitted is {fitted}, and '{table}' has {len(measured)} rows; give fewer")
        found = errors.table_error(measured, fitted=fitted)
        values: dict[str, Any] = {"table": table.name}
    else:
        candidates = load_space(space)
        run = _run(recipe, size, images, changes)
        steps = errors.measure_space(
            run,
            candidates,
            fitted + held_out,
            Budget(seconds=seconds),
            images=images,
            report=lambda number, step: typer.echo(
                f"{number + 1} of {fitted + held_out}: {step.ratio:.3f} +- {step.spread:.1%} of the backbone",
                err=True,
            ),
        )
        measured = [Measured(spec=spec, cost=step.ratio) for spec, step in steps]
        found = errors.prediction_error(measured, size, images, fitted=fitted)
        values = {"space": space, "image_size": size, "images": images, "recipe": recipe}
        values["networks"] = [{"name": spec.name} | asdict(step) for spec, step in steps]
    values["error"] = asdict(found)
    _finish(values, out, as_json=as_json)
    if not as_json:
        _print_error(found)


def fused(
    network: Annotated[str, typer.Argument(help="Network of seven stages.")] = "v1-b4",
    size: SizeOption = 128,
    images: Annotated[str, typer.Option(help="In a step: two numbers or more, ascending.")] = "4,12",
    recipe: RecipeOption = "v1-b4.release",
    seconds: SecondsOption = 20.0,
    changes: SetOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the training step with stages 1-3, 1-5 and 1-7 fused beside that without (V2's table 3)."""
    from effnet.arch import load_spec
    from effnet.search.fused_order import fastest_first, measure_fused
    from effnet.search.turns import Budget

    _check_out(out)
    counts = _counts(images)
    plain = load_spec(network)
    run = _run(recipe, size, max(counts), changes)
    rows = measure_fused(
        run, plain, counts, Budget(seconds=seconds), lambda row: typer.echo(f"measured {row.name}", err=True)
    )
    orders = [fastest_first(plain, rows, number) for number in range(len(counts))]
    values = {"network": network, "image_size": size, "images": counts, "recipe": recipe}
    values |= {"rows": [asdict(row) | {"growth": row.growth} for row in rows], "fastest_first": orders}
    _finish(values, out, as_json=as_json)
    if not as_json:
        _print_fused(rows, counts)
        for count, order in zip(counts, orders, strict=True):
            typer.echo(f"fastest first, {count} images: {', '.join(order)}")
        typer.echo(_PAPER)


def _run(recipe: str, size: int, images: int, changes: list[str] | None) -> Experiment:
    """Return a run of one stage, without images; its own network does not matter."""
    from effnet.api import configure
    from effnet.training.unread import prepare_unread

    stage = ("progressive.stages=1", f"progressive.image_size=[{size},{size}]", f"train.batch_size={images}")
    data = ("data.train_images=100000", "data.classes=1000")
    config = configure(recipe=recipe, changes=(*stage, *data, *(changes or ())))
    return prepare_unread(config)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if len(counts) < 2 or counts[0] < 1 or counts != sorted(set(counts)):
        raise UserError(f"--images is '{text}'; give two ascending numbers or more, as 4,12")
    return counts


def _check_out(out: Path | None) -> None:
    if out and not out.parent.is_dir():
        raise UserError(f"the folder of --out '{out}' does not exist")


def _finish(values: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    from effnet.training.journal import environment

    values = {"environment": environment()} | values
    if out:
        write_json(out, values)
    if as_json:
        print_json(values)


def _print_error(found: PredictionError) -> None:
    def percent(value: MeanAndSpread) -> str:
        return f"{value.mean:.1%} +- {value.spread:.1%}"

    rows = [
        ("median error", percent(found.median)),
        ("mean error", percent(found.mean)),
        ("nine of ten are within", percent(found.nine_of_ten)),
        ("... and by its own account", percent(found.told)),
        ("median error of multiply-adds", percent(found.median_of_macs)),
        ("rank correlation", f"{found.rank.mean:.3f} +- {found.rank.spread:.3f}"),
    ]
    print_table((f"{found.fitted} fitted, {found.held_out} held out, 20 splits", ""), rows)


def _print_fused(rows: list[FusedStep], counts: list[int]) -> None:
    columns = (
        "network",
        "parameters",
        "multiply-adds",
        *(f"{count} images" for count in counts),
        "an image more",
    )
    cells = [
        (
            row.name,
            f"{row.params / 1e6:.1f} M",
            f"{row.macs / 1e9:.2f} G",
            *(f"{step.ratio:.2f} +- {step.spread:.1%}" for step in row.steps),
            f"{row.growth:.2f}",
        )
        for row in rows
    ]
    print_table(columns, cells)

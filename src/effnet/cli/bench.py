"""``effnet bench``: measure this project beside others on one's own machine and data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.data import DataArgument, QuietOption
from effnet.cli.output import print_json, print_table
from effnet.cli.training import JsonOption
from effnet.errors import UserError
from effnet.files import write_json

if TYPE_CHECKING:
    from effnet.bench.input import InputReport, Row

app = typer.Typer(no_args_is_help=True, help="Measure this project beside others, on your machine and data.")

_LARGEST_SIZE = 2048
_LIMITS = ("of 65 MB/s", "of decoding")
"""Shares of what 65 MB of JPEG a second allow, and of decoding the same files and nothing else."""


@app.callback()
def _root() -> None:
    pass


@app.command("input")
def bench_input(
    data: DataArgument,
    size: Annotated[str, typer.Option(help="Image sizes in pixels.")] = "128,192,300",
    images: Annotated[int, typer.Option(min=1, help="Photos in a round, at most.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="How often each method takes its turn.")] = 5,
    store: Annotated[
        Path | None, typer.Option(help="Measure reading from this store, prepared from the same DATA.")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Measure reading from a store, which is made for the purpose.")
    ] = False,
    randaugment: Annotated[
        bool, typer.Option("--randaugment", help="Also measure with RandAugment, and RandAugment alone.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write all figures to this file, as JSON.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how many images a second one core prepares for training, beside other libraries' loaders.

    All methods make random crops of the same photos, in turns; what counts is the CPU time of all their
    threads and processes. Libraries that are not installed are left out and named.
    """
    from effnet.bench import input as inputs
    from effnet.training.journal import environment

    sizes = _sizes(size)
    if store and prepare:
        raise UserError("--store names a store and --prepare makes one; give one of them")
    if out and not out.parent.is_dir():
        raise UserError(f"the folder of --out '{out}' does not exist")
    report = inputs.bench_input(
        data,
        sizes,
        images=images,
        rounds=rounds,
        store=store,
        prepare=prepare,
        randaugment=randaugment,
        announce=None if quiet else lambda what: typer.echo(f"measuring: {what}", err=True),
    )
    values = {"environment": environment()} | report.to_dict()
    if out:
        write_json(out, values)
    if as_json:
        print_json(values)
    else:
        _print_report(report, values["environment"])


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= _LARGEST_SIZE for size in sizes):
        raise UserError(
            f"--size is '{text}'; give image sizes from 1 to {_LARGEST_SIZE} pixels, as 128,192,300"
        )
    return tuple(dict.fromkeys(sizes))


def _print_report(report: InputReport, environment: dict[str, Any]) -> None:
    typer.echo(
        f"{report.images} photos of {report.mean_bytes / 1e3:.1f} KB from {report.source}, {report.rounds} "
        f"rounds, CPU time of one core of {environment['cpu_model']}; median, and smallest to largest\n"
    )
    for task, size in dict.fromkeys((row.task, row.image_size) for row in report.rows):
        rows = [row for row in report.rows if (row.task, row.image_size) == (task, size)]
        columns = (f"{task}, {size} px", "images/s/core", "", "x timm's", "", *_LIMITS)
        cells = [_cells(row) for row in rows]
        width = len(columns) if any(cell[-1] for cell in cells) else len(columns) - len(_LIMITS)
        print_table(columns[:width], [cell[:width] for cell in cells])
        typer.echo("")
    tasks: dict[tuple[str, str], list[str]] = {}
    for missing in report.missing:
        tasks.setdefault((missing.method, missing.reason), []).append(missing.task)
    for (method, reason), names in tasks.items():
        typer.echo(f"not measured: {method} ({', '.join(names)}): {reason}")


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.ratio_range
    return (
        row.method,
        f"{row.median:.0f}",
        f"{min(row.rates):.0f} to {max(row.rates):.0f}",
        f"{row.ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        "" if row.share_of_limit is None else f"{row.share_of_limit:.0%}",
        "" if row.share_of_decoding is None else f"{row.share_of_decoding:.0%}",
    )

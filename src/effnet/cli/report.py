"""Commands that tell what runs came to: as a page, and as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import DeviceOption, JsonOption
from effnet.cli.output import print_json, print_table
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.reporting.differences import Difference
    from effnet.reporting.measured import Pair

_SIDE_BY_SIDE = 4
"""Runs up to which each is a column, so that the table fits on a narrow screen; else each is a line."""

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")]
BatchSizeOption = Annotated[int, typer.Option(help="Images at a time.", min=1)]
EvaluateOption = Annotated[
    bool,
    typer.Option(
        "--evaluate/--no-evaluate",
        help="Ask the networks about their validation images, or only read what the runs say.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Do not say what is done.")]


def report(
    runs: RunsArgument,
    out: Annotated[
        Path | None, typer.Option(help="Write the page to this file. Default: report.html in the first run.")
    ] = None,
    evaluate: EvaluateOption = True,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write all about a run, or about several side by side, as one HTML file that needs nothing else.

    What cannot be had of a run, as photos that have moved, has a sentence in its place.
    """
    from effnet.reporting.page import write_page
    from effnet.reporting.report import collect_report

    path = out or runs[0] / "report.html"
    if path.is_dir() or (out is not None and not path.parent.is_dir()):
        raise UserError(f"--out must be a file in a folder that exists, got '{path}'")
    found = collect_report(
        runs,
        evaluates=evaluate,
        device=device,
        batch_size=batch_size,
        announce=_announcer(quiet),
    )
    size = write_page(path, found)
    if as_json:
        print_json({"report": str(path), "bytes": size, "missing": list(found.missing)})
        return
    for sentence in found.missing:
        typer.echo(f"missing: {sentence}")
    typer.echo(f"report: {path} ({size / 1e6:.2f} MB)")


def compare(
    runs: RunsArgument,
    evaluate: EvaluateOption = True,
    sort: Annotated[
        str | None, typer.Option(help="Order by a column, best first, as top1, loss, seconds or params.")
    ] = None,
    batch_size: BatchSizeOption = 64,
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put runs beside each other as a table, and test the first against each other one.

    Top-1 and loss are of the best weights, with what the bootstrap says of other images of the kind (95 %).
    """
    from effnet.reporting.table import cells, compare_runs

    table = compare_runs(
        runs,
        evaluates=evaluate,
        sort=sort,
        device=device,
        batch_size=batch_size,
        announce=_announcer(quiet or not evaluate),
    )
    if as_json:
        print_json(table.to_dict())
        return
    titles, *lines = cells(table.rows)
    if len(lines) <= _SIDE_BY_SIDE:
        titles, *lines = [list(line) for line in zip(titles, *lines, strict=True)]
    print_table(titles, lines)
    for row in table.rows if evaluate else ():
        if row.missing:
            typer.echo(f"{row.name}: {row.missing}")
    for pair in table.pairs:
        typer.echo(_in_words(pair))
    if table.differences:
        typer.echo("\ndifferent:")
    for difference in table.differences:
        typer.echo(f"  {difference.key}: {_by_value(difference, table.names)}")


def _by_value(difference: Difference, names: Sequence[str]) -> str:
    """Name each value once, with the runs that have it."""
    having: dict[str, list[str]] = {}
    for name, value in zip(names, difference.values, strict=True):
        having.setdefault(value, []).append(name)
    return "; ".join(f"{value} ({', '.join(some)})" for value, some in having.items())


def _in_words(pair: Pair) -> str:
    from effnet.reporting.missing import Missing
    from effnet.reporting.wording import probability

    found = pair.comparison
    if isinstance(found, Missing):
        return f"{pair.first} and {pair.second} cannot be compared image by image: {found.reason}"
    points = found.difference
    return (
        f"{pair.first} minus {pair.second}: {100 * points.value:+.1f} points of top-1 "
        f"({100 * points.low:+.1f} to {100 * points.high:+.1f}), p {_equals(probability(found.p_value))} "
        f"(McNemar: {found.only_first} images only the first has right, {found.only_second} only the second)"
    )


def _equals(value: str) -> str:
    return value if value.startswith("<") else f"= {value}"


def _announcer(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: typer.echo(text, err=True))

"""``effnet data check`` and ``effnet data show``: see the images before a network does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.data import DataArgument, QuietOption, progress_bar
from effnet.cli.output import print_json
from effnet.cli.training import JsonOption, ModelOption, RecipeOption, SetOption
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.inspection.report import DataReport


def check(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Write the page to this file.")] = Path("data-check.html"),
    changes: SetOption = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with code 1 if an image cannot be read, is in both splits, or in more than one class.",
        ),
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with images and labels: unreadable, twice, leaked, mislabelled, unbalanced."""
    from effnet.api import configure
    from effnet.inspection.check import check_data
    from effnet.inspection.findings import findings
    from effnet.inspection.page import write_page

    _check_folder(out)
    config = configure(data, changes=changes or ()).data
    with progress_bar("images", quiet=quiet) as announce:
        report = check_data(config, announce=announce)
    write_page(out, report)
    if as_json:
        print_json({"findings": [finding.to_dict() for finding in findings(report)]} | report.to_dict())
    else:
        _print_report(report)
        typer.echo(f"page: {out}")
    if strict and report.has_errors:
        raise typer.Exit(1)


def show(
    data: DataArgument,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="Write the picture to this file.")] = Path("data-show.png"),
    images: Annotated[int, typer.Option(help="How many photos to show.", min=1, max=64)] = 8,
    changes: SetOption = None,
) -> None:
    """Draw some photos as the network will see them in every stage of a run."""
    from effnet.api import configure
    from effnet.training.experiment import prepare_experiment
    from effnet.training.views import draw_views

    _check_folder(out)
    config = configure(data, recipe=recipe, model=model, changes=changes or ())
    draw_views(prepare_experiment(config, load=False), out, images=images)
    typer.echo(f"picture: {out}")


def _check_folder(out: Path) -> None:
    """Refuse a name that cannot be written to, before the work."""
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out must be a file in a folder that exists, got '{out}'")


def _print_report(report: DataReport) -> None:
    from effnet.inspection.findings import findings

    data = report.found.data
    typer.echo(
        f"{len(report.found):,} images of {len(report.classes):,} classes: {len(data.train):,} to train on, "
        f"{len(data.val):,} to validate on"
    )
    if report.is_drawn:
        typer.echo(
            f"the data has no validation split; it is drawn as in a run with data.val_fraction="
            f"{report.config.val_fraction:g}, data.split_seed={report.config.split_seed}"
        )
    if report.sizes:
        sizes = (report.sizes.smallest, report.sizes.median, report.sizes.largest)
        small, usual, large = (f"{width} x {height}" for height, width in sizes)
        kinds = [f"{kind} {count:,}" for kind, count in report.found.formats.most_common()]
        kinds += [f"{kind} {count:,}" for kind, count in report.found.colors.most_common() if kind != "color"]
        typer.echo(f"{', '.join(kinds)}; from {small} to {large} px, usually {usual}")
    found = findings(report)
    if not found:
        typer.echo("nothing is wrong that can be seen from outside")
    for finding in found:
        typer.echo(f"\n{finding.level}: {finding.title}")
        for example in finding.examples:
            typer.echo(f"    {example}")
        typer.echo(f"  {finding.advice}")
    typer.echo("")

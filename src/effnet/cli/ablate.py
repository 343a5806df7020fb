"""The ``ablate`` command: a table of a paper on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.output import print_json, print_table
from effnet.cli.training import InterruptedCommandError, JsonOption, SetOption
from effnet.errors import UserError
from effnet.files import whole_file, write_json

if TYPE_CHECKING:
    from effnet.ablation.report import Report


def ablate(
    name: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Which table or figure; none: list them.")
    ] = None,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="What to train on, as for `effnet train`.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The paper's networks, sizes and epochs, not small ones.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Runs of each cell.", min=1)] = 3,
    jobs: Annotated[int, typer.Option(help="Runs at a time; they share the processors evenly.", min=1)] = 1,
    epochs: Annotated[float | None, typer.Option(help="Of every run, instead of the recipe's.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Train on about that many images, of each class its share.", min=1)
    ] = None,
    cell: Annotated[
        list[str] | None, typer.Option("--cell", metavar="CELL", help="Run this cell only; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs and the table. Default: runs/ablate-TABLE.")
    ] = None,
    changes: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the table only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the grid of a paper's table on your data, and print it beside the paper's numbers.

    The same command continues what was interrupted, run by run and step by step. Small networks see images of
    16 to 32 px; photos may want more: --set progressive.image_size=[64,128].
    """
    from effnet.ablation.definitions import ABLATIONS, ablation_named
    from effnet.ablation.report import build_report
    from effnet.ablation.runner import plan_study, run_study
    from effnet.runs import InterruptedRunsError
    from effnet.training.journal import environment

    if name is None:
        for ablation in ABLATIONS.values():
            typer.echo(f"{ablation.name:<12} {ablation.question} ({ablation.source})")
        return
    ablation = ablation_named(name)
    if data is None:
        raise UserError(f"name the data to train on: effnet ablate {name} DATA")
    lengths = [] if epochs is None else [f"train.epochs={epochs}"]
    lengths += [] if images is None else [f"data.max_train_images={images}"]
    study = plan_study(
        ablation,
        data,
        out or Path("runs") / f"ablate-{name}{'-full' if full else ''}",
        full=full,
        seeds=seeds,
        jobs=jobs,
        changes=[*lengths, *(changes or ())],
        cells=cell or (),
    )
    try:
        trials = run_study(study, lambda text: None if quiet else typer.echo(text, err=True))
    except InterruptedRunsError as error:
        raise InterruptedCommandError(str(error)) from error
    report = build_report(study, trials, environment())
    looks = _write(report)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
        for path in looks:
            typer.echo(f"what they look at: {path}")
    if report.failures:
        raise typer.Exit(1)


def _write(report: Report) -> list[Path]:
    """Write the table and its pictures; return those of what the networks look at."""
    from effnet.ablation.looking import draw_looks
    from effnet.ablation.plot import plot_report

    out = report.study.out
    write_json(out / "table.json", report.to_dict())
    with whole_file(out / "table.md") as temporary:
        temporary.write_text(report.to_markdown(), encoding="utf-8")
    if not any(row.top1 for row in report.rows):
        return []
    plot_report(report, out / "table.png")
    return draw_looks(report, out / "looks") if report.study.ablation.looks else []


def _print(report: Report) -> None:
    ablation = report.study.ablation
    print_table(report.columns(), report.cells(), title=f"{ablation.title} ({ablation.source})")
    for trial in report.failures:
        typer.echo(f"failed: {trial.name}: {trial.failure}; see {trial.log_path}")
    typer.echo(f"table and picture: {report.study.out}/table.md, table.json, table.png")

"""The ``search`` command: find a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.search_table import search_table
from effnet.cli.training import JsonOption
from effnet.errors import UserError


def search(
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="FILE",
            help="Compare strategies on a table of trained networks, by their regret.",
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What is wanted, such as `v2` or `v2:w=-0.03,v=-0.02`.")
    ] = "v2",
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="What proposes networks; repeatable with --table. Default there: all."),
    ] = None,
    asks: Annotated[
        str | None, typer.Option(help="With --table: after how many asks to look. Default: 50,100,300,1000.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="With --table: searches of each strategy.", min=1)] = 20,
    jobs: Annotated[int, typer.Option(help="With --table: processes.", min=1)] = 1,
    out: Annotated[
        Path | None, typer.Option(help="With --table: write all figures to this JSON file.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare how well search strategies find the best networks of a table."""
    if table is None:
        raise UserError("name a table of trained networks: effnet search --table FILE")
    search_table(
        table,
        strategies=strategy,
        objective=objective,
        asks=asks,
        seeds=seeds,
        jobs=jobs,
        out=out,
        quiet=quiet,
        as_json=as_json,
    )

"""What ``effnet scale --grid`` does: trains a grid of alpha, beta and gamma and prints what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from effnet.cli.output import print_json, print_table
from effnet.cli.training import InterruptedCommandError

_MINIVAL = "data.minival_fraction=0.2"
"""The constants are chosen by the result, which must not be that of the validation images."""


def run_scale_grid(
    model: str,
    data: str,
    *,
    out: Path,
    recipe: str | None,
    changes: Sequence[str],
    candidates: int,
    seeds: int,
    jobs: int,
    factor: float,
    tolerance: float,
    guard: bool | None,
    as_json: bool,
) -> None:
    """Train the grid; see `effnet.search.grid_runs`.

    Raises:
        UserError: Something that was given cannot be used.
        typer.Exit: A run failed.
    """
    from effnet.api import configure
    from effnet.runs import InterruptedRunsError
    from effnet.search.grid import grid_points, spread_points
    from effnet.search.grid_runs import COLUMNS, GridStudy, best_row, run_grid, sized_base

    config = configure(data, recipe=recipe, model=model, changes=(_MINIVAL, *changes))
    base = sized_base(config)
    points = grid_points(base, factor=factor, tolerance=tolerance, guard=guard)
    chosen = spread_points(points, candidates)
    typer.echo(
        f"{len(points)} different networks cost {factor:g} times {base.name}, within {tolerance:.0%}; "
        f"{len(chosen)} of them are tried",
        err=True,
    )
    study = GridStudy(base=base, config=config, points=tuple(chosen), out=out, seeds=seeds, jobs=jobs)
    try:
        rows = run_grid(study, lambda text: typer.echo(text, err=True))
    except InterruptedRunsError as error:
        raise InterruptedCommandError(str(error)) from error
    best = best_row(rows)
    constants = best.point.compound if best and best.point else None
    if as_json:
        found = {name: getattr(constants, name) for name in ("alpha", "beta", "gamma")} if constants else None
        print_json({"best": found, "rows": [row.to_dict() for row in rows], "table": str(out / "table.json")})
    else:
        print_table(COLUMNS, [row.cells() for row in rows])
        if constants:
            typer.echo(
                f"use it with: effnet scale {model} --alpha {constants.alpha:g} --beta {constants.beta:g} "
                f"--gamma {constants.gamma:g} --phi N"
            )
        typer.echo(f"table of all that was tried: {out}/table.md, table.json; the networks: {out}/specs")
    failures = [failure for row in rows for failure in row.failures]
    for failure in failures:
        typer.echo(f"failed: {failure}", err=True)
    if failures:
        raise typer.Exit(1)

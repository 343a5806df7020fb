"""``effnet search --table``: how well the strategies search a table whose every answer is known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from effnet.cli.output import print_json, print_table
from effnet.errors import UserError
from effnet.files import whole_file

if TYPE_CHECKING:
    from effnet.search.regret import RegretReport, Search

_DEFAULT_ASKS = "50,100,300,1000"


def search_table(
    table: Path,
    *,
    strategies: list[str] | None,
    objective: str,
    asks: str | None,
    seeds: int,
    jobs: int,
    out: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Search a table with each strategy and seed, and print the regret beside each other.

    Args:
        table: The file.
        strategies: Names; None: all that are installed.
        objective: As a command line has it.
        asks: Numbers with commas between them.
        seeds: Searches of each strategy.
        jobs: Processes.
        out: A JSON file to write, too.
        quiet: Whether to print the result only.
        as_json: Whether to print JSON.

    Raises:
        UserError: Something that was given is not allowed.
    """
    from effnet.search.objective import objective_from_text
    from effnet.search.regret import Plan, measure_regret
    from effnet.search.strategies.registry import installed_strategies
    from effnet.training.journal import environment

    if out and not out.parent.is_dir():
        raise UserError(f"the folder of --out '{out}' does not exist")
    # Matrices are small: threads would only wait for each other. Read when a process of the pool starts.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    plan = Plan(
        table=table,
        objective=objective_from_text(objective),
        strategies=tuple(strategies or installed_strategies()),
        asks=_ask_counts(asks or _DEFAULT_ASKS),
        seeds=seeds,
    )

    def say(search: Search) -> None:
        regrets = ", ".join(f"{regret:.2%}" for regret in search.observed)
        typer.echo(
            f"{search.strategy}, seed {search.seed}: {regrets} ({search.ask_ms:.1f} ms an ask)", err=True
        )

    report = measure_regret(plan, jobs, None if quiet else say)
    values: dict[str, Any] = {"environment": environment()} | report.to_dict()
    if out:
        with whole_file(out) as partial:
            partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(values)
    else:
        _print(report)


def _ask_counts(text: str) -> tuple[int, ...]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise UserError(f"--asks must be whole numbers of at least 1, such as {_DEFAULT_ASKS}, got '{text}'")
    return tuple(counts)


def _print(report: RegretReport) -> None:
    for rule, title in (("observed", "best observed"), ("predicted", "best by a model of all observations")):
        rows = [
            [name, *(_cell(column) for column in entry[rule]), f"{entry['ask_ms']:.1f}"]
            for name, entry in report.to_dict()["strategies"].items()
        ]
        typer.echo(
            f"regret in % of what is {title}, mean ± standard deviation; searches of each strategy: "
            f"{report.plan.seeds}"
        )
        print_table(
            ["strategy", *(f"{count} asks" for count in report.plan.asks), "ms an ask"],
            rows,
        )


def _cell(column: dict[str, Any]) -> str:
    mean = f"{100 * column['mean']:.2f}"
    return mean if column["std"] is None else f"{mean} ± {100 * column['std']:.2f}"

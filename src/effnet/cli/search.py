"""The ``search`` command: find a network for one's own images and device."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.output import print_json, print_table
from effnet.cli.search_table import search_table
from effnet.cli.training import (
    FailedCommandError,
    InterruptedCommandError,
    JsonOption,
    ModelOption,
    SetOption,
)
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.search.study import Progress, Study

_SHOWN = 20
"""Rows of the leaderboard on a terminal."""


def search(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="What to search on, as for `effnet train`; may be left out to go on."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help="Networks to choose from: `small`, `v1`, `v2`, or a file. Default: `small`."),
    ] = None,
    model: ModelOption = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What is wanted: `v2`, `v2:w=-0.03,v=-0.02`, `v1:target=400e6`, `latency:target=20`, "
            "`absolute:cost=step_ms,target=40`, or a front, `pareto:accuracy,step_ms`. Default: `v2`."
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="What proposes candidates. Default: `thompson`; with --table, repeatable: all."),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Candidates to train in the whole study, on all machines.", min=1)
    ] = 100,
    hours: Annotated[float | None, typer.Option(help="Begin no trial here after so long.", min=0.0)] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="The study to begin or to join: a folder, or a database such as "
            "postgresql://user@host/name. Default: the folder --out.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of this machine's trials and of the report. Default: runs/search."),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Trials at a time here; they share the processors evenly.", min=1)
    ] = 1,
    recipe: Annotated[
        str | None,
        typer.Option(help="How each candidate is trained, see `effnet recipes`. Default: `search`."),
    ] = None,
    changes: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the proposals. Default: 0.", min=0)] = None,
    eta: Annotated[
        int | None,
        typer.Option(
            help="At each rung the best 1/ETA of the candidates go on; 0: train all to the end. Default: 3.",
            min=0,
        ),
    ] = None,
    rungs: Annotated[
        int | None, typer.Option(help="How often a candidate may be stopped. Default: 1.", min=0)
    ] = None,
    max_params: Annotated[int | None, typer.Option(help="Most parameters.", min=1)] = None,
    max_macs: Annotated[int | None, typer.Option(help="Most multiply-adds of a forward pass.", min=1)] = None,
    max_step_ms: Annotated[float | None, typer.Option(help="Longest training step.", min=0.0)] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Longest forward pass of one image.", min=0.0)
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Most memory of a training step, in 2^20 bytes.", min=0.0)
    ] = None,
    trial_minutes: Annotated[
        float | None, typer.Option(help="A trial that takes longer has failed. Default: any time.", min=0.0)
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write the report of a study as it is, and try nothing.")
    ] = False,
    optuna: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="With the report, copy the study to this storage, for `optuna-dashboard URL`."
        ),
    ] = None,
    step_seconds: Annotated[
        float | None,
        typer.Option(help="Spent on measuring the training step of each candidate. Default: 4.", min=0.01),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Search no images but a table of trained networks, and print the strategies' regret.",
        ),
    ] = None,
    asks: Annotated[
        str | None, typer.Option(help="With --table: after how many asks to look. Default: 50,100,300,1000.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="With --table: searches of each strategy.", min=1)] = 20,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the network for your images and this device, by training many candidates for a short while.

    Candidates are compared on images held out of the training split; the validation images stay unseen. The
    same command, or `effnet search --study DIR|URL`, continues a study; run on other machines at the same
    time, it joins as a worker.
    """
    if table is not None:
        _refuse_with_table(
            {"DATA": data, "--space": space, "--model": model, "--study": study, "--set": changes}
        )
        search_table(
            table,
            strategies=strategy,
            objective=objective or "v2",
            asks=asks,
            seeds=seeds,
            jobs=workers,
            out=out,
            quiet=quiet,
            as_json=as_json,
        )
        return
    from effnet.search.bounds import Bounds
    from effnet.search.joining import Place, Request, open_study, opened_study
    from effnet.search.patience import Patience
    from effnet.search.places import trial_threads
    from effnet.search.study import SystematicFailureError, run_study

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    request = Request(
        data=data,
        space=space,
        model=model,
        recipe=recipe,
        changes=tuple(changes or ()),
        objective=objective,
        strategy=_one_strategy(strategy),
        seed=seed,
        bounds=Bounds(
            max_params=max_params,
            max_macs=max_macs,
            max_step_ms=max_step_ms,
            max_latency_ms=max_latency_ms,
            max_memory_mb=max_memory_mb,
        ),
        eta=eta,
        rungs=rungs,
        trial_minutes=trial_minutes,
        step_seconds=step_seconds,
    )
    place = Place.of(study, out)
    if report:
        with opened_study(place) as there:
            _finish(there, optuna, as_json=as_json)
        return
    with _stopping() as stop:
        opened = open_study(
            request,
            place,
            patience=Patience(announce=say, is_stopped=stop.is_set),
            threads=trial_threads(workers),
            announce=say,
        )
        with opened:
            say(_beginning(opened, trials))
            try:
                run_study(
                    opened,
                    trials=trials,
                    hours=hours,
                    workers=workers,
                    stop=stop,
                    report=lambda progress: say(_line(opened, progress)),
                )
            except SystematicFailureError as error:
                raise FailedCommandError(str(error)) from error
            _finish(opened, optuna, as_json=as_json)
    if stop.is_set():
        raise InterruptedCommandError(
            "stopped, and what was tried is saved; continue with: "
            f"effnet search --study {place.folder} --trials {trials} --workers {workers}"
        )


def _refuse_with_table(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise UserError(f"--table searches a table and no images, so leave {name} out")


def _one_strategy(names: list[str] | None) -> str | None:
    if names and len(names) > 1:
        raise UserError(f"a study has one --strategy, got {', '.join(names)}; several are for --table")
    return names[0] if names else None


@contextmanager
def _stopping() -> Iterator[Event]:
    """Give an event that SIGINT and SIGTERM set; the second one stops at once."""
    stop = Event()

    def request(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _beginning(study: Study, wanted: int) -> str:
    there = study.ledger.trials()
    ended = sum(trial.has_ended for trial in there)
    begun = f"{ended} of them ended before" if there else "none begun yet"
    return (
        f"searching {study.space.count():.3g} networks of the space {study.space.name} around "
        f"{study.reference.name} for {study.settings.objective}: {wanted} trials, {begun}; the reference's "
        f"step takes {study.settings.reference_ms:.3g} ms"
    )


def _line(study: Study, progress: Progress) -> str:
    trial, ending = progress.trial, progress.ending
    parts = [f"trial {trial.number}: {ending.state}"]
    measures = ending.measures
    if measures and measures.accuracy is not None:
        parts.append(f"top-1 {measures.accuracy:.2%}")
    if measures and measures.step_ms is not None and study.settings.reference_ms:
        parts.append(f"step {measures.step_ms / study.settings.reference_ms:.2f} of the reference's")
    if measures and measures.params is not None:
        parts.append(f"{measures.params:,} parameters")
    if (
        measures
        and ending.state == "done"
        and (reward := study.settings.objective.reward(measures)) is not None
    ):
        parts.append(f"reward {reward:.4f}")
    if ending.reason:
        parts.append(ending.reason)
    return ", ".join(parts)


def _finish(study: Study, optuna: str | None, *, as_json: bool) -> None:
    """Write the report and print it; copy the study to Optuna's storage where that is asked for."""
    from filelock import FileLock

    from effnet.search.leaderboard import cells, columns, write_report
    from effnet.search.report import build_report

    report = build_report(
        study.ledger.trials(), study.space, study.settings.objective, study=study.ledger.name
    )
    # Several processes of this machine may come to the end at once.
    with FileLock(study.folder / ".report.lock"):
        files = write_report(report, study.folder)
        if optuna:
            _copy_to_optuna(study, optuna)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        print_json(report.to_dict() | {"files": {name: str(path) for name, path in files.items()}})
        return
    if report.winner:
        print_table(columns(report), cells(report, _SHOWN))
    for state, reason, number in report.reasons:
        if state == "failed":
            typer.echo(f"{number} failed: {reason}")
    typer.echo(f"leaderboard and pictures: {', '.join(str(path) for path in files.values())}")
    if report.winner:
        typer.echo(f"train the best with: effnet train DATA --model {files['best']}")


def _copy_to_optuna(study: Study, url: str) -> None:
    from effnet.search.optuna_export import export_to_optuna

    export_to_optuna(
        study.ledger,
        url,
        name=study.folder.resolve().name,
        variables=study.space.variables,
        objective=study.settings.objective,
    )

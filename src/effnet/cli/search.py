"""The ``search`` command: find a network for one's own images and device."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from effnet.cli.search_output import beginning, finish, line
from effnet.cli.search_table import search_table
from effnet.cli.training import (
    FailedCommandError,
    InterruptedCommandError,
    JsonOption,
    ModelOption,
    SetOption,
)
from effnet.errors import UserError


def search(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="What to search on, as for `effnet train`; may be left out to go on."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Networks to choose from: `small`, `v1`, `v2`, or a file; or `schedule`: how one network's "
            "images grow. Default: `small`."
        ),
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
        typer.Option(
            help="How each candidate is trained, see `effnet recipes`. Default: `search`; of schedules, "
            "`scratch`."
        ),
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
    repeats: Annotated[
        int | None,
        typer.Option(
            help="Of schedules: other seeds for each finalist, on top of --trials. Default: 2.", min=0
        ),
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
    from effnet.search.joining import Place, Request
    from effnet.search.opening import open_any, opened_any
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
        repeats=repeats,
    )
    place = Place.of(study, out)
    if report:
        with opened_any(place) as there:
            finish(there, optuna, as_json=as_json)
        return
    with _stopping() as stop:
        opened = open_any(
            request,
            place,
            patience=Patience(announce=say, is_stopped=stop.is_set),
            threads=trial_threads(workers),
            announce=say,
        )
        with opened:
            say(beginning(opened, trials))
            try:
                run_study(
                    opened,
                    trials=trials,
                    hours=hours,
                    workers=workers,
                    stop=stop,
                    report=lambda progress: say(line(opened, progress)),
                )
            except SystematicFailureError as error:
                raise FailedCommandError(str(error)) from error
            finish(opened, optuna, as_json=as_json)
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

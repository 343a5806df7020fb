"""The command that trains one network for a whole space and ranks its networks with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.output import duration, print_json, print_table
from effnet.cli.training import (
    DataArgument,
    FailedCommandError,
    InterruptedCommandError,
    JsonOption,
    SetOption,
)
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.search.supernet.checking import Check
    from effnet.search.supernet.folder import SupernetFolder
    from effnet.search.supernet.ranking import Ranked

_SHOWN = 10
_RECIPE = "search"


def supernet(
    data: DataArgument = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the supernet; the same command continues what is in it.")
    ] = Path("runs/supernet"),
    space: Annotated[
        str | None, typer.Option(help="Name or file of a space of networks, to begin a supernet with.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe of the training; its network is that of the space.")
    ] = _RECIPE,
    changes: SetOption = None,
    between: Annotated[
        int,
        typer.Option(min=0, help="Random networks that a step trains besides the largest and the smallest."),
    ] = 2,
    distillation: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the largest network's answer in what others learn."),
    ] = 0.5,
    check: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Train N random networks alone; print Kendall's tau of both orders."
        ),
    ] = 0,
    study: Annotated[
        str | None,
        typer.Option(help="Compare with the completed trials of this study instead, a folder or URL."),
    ] = None,
    check_epochs: Annotated[
        float | None, typer.Option(help="That each of them is trained. Default: as long as the supernet.")
    ] = None,
    least_tau: Annotated[
        float, typer.Option(help="Kendall's tau from which on the ranking is believed.")
    ] = 0.5,
    rank: Annotated[int, typer.Option(metavar="N", min=0, help="Rank N random networks of the space.")] = 0,
    candidates: Annotated[
        list[Path] | None,
        typer.Option(metavar="SPEC", help="Rank this network; may be given several times."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="Of the minival, so many to rank by, to be faster. 0: all.")
    ] = 0,
    best: Annotated[
        int, typer.Option(metavar="K", min=0, help="Write the K first of the ranking as specs to train.")
    ] = 0,
    believe: Annotated[
        bool, typer.Option("--believe", help="Write them though the ranking is unchecked, or tau too low.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the results only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one network whose parts are all networks of a space, and rank thousands of them by it.

    A ranking is to be believed once it has been checked against networks that were trained alone.
    """
    from effnet.search.supernet.work import SupernetWork

    folder = _folder(data, out, space, recipe, changes, between, distillation)
    work = SupernetWork(folder, images=images)

    def say(text: str) -> None:
        if not as_json:
            typer.echo(text)

    def run() -> dict[str, Any]:
        work.train()
        say(f"the supernet is trained ({duration(work.seconds)}): {out}")
        answer: dict[str, Any] = {"supernet": str(out), "seconds": work.seconds}
        if check or study:
            checked = work.check_by_study(study) if study else work.check(check, epochs=check_epochs)
            answer |= {"check": checked.to_dict(), "verdict": checked.supernet.verdict(least_tau)}
            if not as_json:
                _print_check(checked, least_tau)
        if rank or candidates:
            ranked = work.rank(rank, candidates or ())
            answer |= {"ranking": [one.to_dict() for one in ranked], "believed": work.is_believed(least_tau)}
            if not as_json:
                _print_ranking(ranked)
                typer.echo(work.verdict(least_tau))
        if best:
            paths = work.write_best(best, least_tau=least_tau, believes=believe)
            answer["best"] = [str(path) for path in paths]
            say(f"the first {len(paths)}: {paths[0].parent}")
        return answer

    with work.display(quiet=quiet):
        answer = _expecting_failures(run)
    if as_json:
        print_json(answer)


def _expecting_failures(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    import torch

    from effnet.data.failures import WorkerError
    from effnet.training.guard import DivergedRunError
    from effnet.training.loop import InterruptedRunError

    try:
        return run()
    except InterruptedRunError as error:
        raise InterruptedCommandError(str(error)) from error
    except (DivergedRunError, WorkerError, torch.OutOfMemoryError) as error:
        raise FailedCommandError(str(error)) from error


def _folder(
    data: str | None,
    out: Path,
    space: str | None,
    recipe: str,
    changes: list[str] | None,
    between: int,
    distillation: float,
) -> SupernetFolder:
    from effnet.api import configure
    from effnet.search.rules import load_space, space_names
    from effnet.search.supernet.folder import SupernetSettings, begin_supernet, open_supernet

    if data is None:
        if space or changes:
            raise UserError("--space and --set begin a supernet on DATA; to continue one, give --out alone")
        return open_supernet(out)
    if space is None:
        raise UserError(f"name the space with --space: one of {', '.join(space_names())}, or a file")
    config = configure(data, recipe=recipe, changes=changes or ())
    settings = SupernetSettings(space=load_space(space), between=between, distillation=distillation)
    return begin_supernet(out, config, settings)


def _print_check(check: Check, least_tau: float) -> None:
    rows = [
        (
            one.name,
            f"{one.with_supernet:.2%}",
            f"{one.alone:.2%}",
            f"{one.params / 1e6:.2f} M",
            f"{one.macs / 1e6:.1f} M",
        )
        for one in sorted(check.networks, key=lambda one: -one.alone)
    ]
    print_table(("network", "in the supernet", "alone", "parameters", "multiply-adds"), rows)
    for name, found in (("parameters", check.params), ("multiply-adds", check.macs)):
        typer.echo(f"for comparison, by {name}: tau {found.tau:.2f} ({found.low:.2f} to {found.high:.2f})")
    typer.echo(check.supernet.verdict(least_tau))


def _print_ranking(ranked: Sequence[Ranked]) -> None:
    rows = []
    for place, one in enumerate(ranked[:_SHOWN], start=1):
        row = one.to_dict()
        rows.append(
            (
                f"{place}",
                one.spec.name,
                f"{one.accuracy:.2%}",
                f"{row['params'] / 1e6:.2f} M",
                f"{row['macs'] / 1e6:.1f} M",
            )
        )
    print_table(("place", "network", "in the supernet", "parameters", "multiply-adds"), rows)
    if len(ranked) > _SHOWN:
        typer.echo(f"and {len(ranked) - _SHOWN:,} more in ranking.json")

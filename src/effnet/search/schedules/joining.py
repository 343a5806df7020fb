"""Begin a study of schedules, or join one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from effnet.api import configure
from effnet.arch.io import from_dict, to_dict
from effnet.config import Config
from effnet.data.sources import absolute_source, open_configured
from effnet.errors import UserError
from effnet.search.bounds import Bounds
from effnet.search.differences import differences
from effnet.search.joining import MINIVAL, NO_BOUNDS, STRATEGY, Place, Request
from effnet.search.ledger import Ledger
from effnet.search.objective import Objective, objective_from_text
from effnet.search.patience import Patience
from effnet.search.schedules.measuring import measure_cost
from effnet.search.schedules.space import ScheduleSpace, space_for
from effnet.search.schedules.study import ScheduleStudy
from effnet.search.settings import SearchSettings, fingerprint, without_place
from effnet.search.strategies import strategy_named
from effnet.training.experiment import network_of, prepare_experiment

SPACE = "schedule"
"""What ``--space`` is for schedules."""
RECIPE = "scratch"
REPEATS = 2
_OBJECTIVE = Objective(kind="accuracy")


def open_schedules(
    request: Request, place: Place, *, patience: Patience, threads: int, announce: Callable[[str], None]
) -> ScheduleStudy:
    """Begin the study of schedules at a place, or join it.

    Arguments are those of `effnet.search.joining.open_study`.

    Raises:
        UnreachableError: There is no reaching the database.
        UserError: Something that was asked for means nothing for schedules or cannot be had, or the study was
            begun with other settings.
    """
    source = request.data or place.source
    if source is None:
        raise UserError("name the images to search on: effnet search DATA")
    source = absolute_source(source)
    ledger = Ledger.find(place.url, patience=patience)
    if ledger is None:
        settings, space = _begun(request, source, threads, announce)
        place.folder.mkdir(parents=True, exist_ok=True)
        try:
            ledger = Ledger.open(place.url, settings.to_dict(), to_dict(space), patience=patience)
        except UserError:
            # Another one may have begun it meanwhile, and measured another time.
            if (ledger := Ledger.find(place.url, patience=patience)) is None:
                raise
    study = joined(ledger, place, source)
    try:
        if differing := _differing(request, source, study):
            raise UserError(
                f"the study {ledger.name} was begun differently: {differing}; leave that out, or begin "
                "another one with --study or --out"
            )
        place.note(source)
        study.queue_first()
    except BaseException:
        ledger.close()
        raise
    return study


def _begun(
    request: Request, source: str, threads: int, announce: Callable[[str], None]
) -> tuple[SearchSettings, ScheduleSpace]:
    """Return what a study is to be begun with, once all of it was checked and steps were measured."""
    settings, space = _asked(request, source)
    strategy_named(settings.strategy)
    run = replace(settings.run, data=replace(settings.run.data, source=source, workers=threads))
    announce("measuring training steps of different sizes")
    torch.set_num_threads(threads)
    experiment = prepare_experiment(run)
    cost = measure_cost(experiment, space.first_sizes, settings.step_seconds)
    return replace(settings, step_cost=cost), space


def joined(ledger: Ledger, place: Place, source: str) -> ScheduleStudy:
    """Return the study of a ledger."""
    return ScheduleStudy(
        ledger=ledger,
        settings=SearchSettings.from_dict(ledger.settings, ledger.name),
        space=from_dict(ScheduleSpace, ledger.space, ledger.name),
        folder=place.folder,
        source=source,
    )


def _differing(request: Request, source: str, study: ScheduleStudy) -> str:
    """Name what of a request is not as the study has it; empty: nothing."""
    theirs = study.settings
    run = theirs.run if not (request.recipe or request.model or request.changes) else None
    settings, space = _asked(request, source, run=run, known=theirs, seeds=study.space.seeds)
    return differences(
        {"space": _plain(study.space), "settings": theirs.asked()},
        {"space": _plain(space), "settings": settings.asked()},
    )


def _asked(
    request: Request,
    source: str,
    *,
    run: Config | None = None,
    known: SearchSettings | None = None,
    seeds: int = 1 + REPEATS,
) -> tuple[SearchSettings, ScheduleSpace]:
    _check_sensible(request)
    if run is None:
        run = configure(source, recipe=request.recipe or RECIPE, model=request.model, changes=request.changes)
    run = replace(
        run, data=replace(run.data, source=source, minival_fraction=run.data.minival_fraction or MINIVAL)
    )
    images = open_configured(run.data)
    space = space_for(
        run,
        train_size=network_of(run.model).train_size,
        train_images=len(images.train.labels),
        seeds=seeds if request.repeats is None else 1 + request.repeats,
    )
    given: dict[str, Any] = request.fields_given()
    if known is not None:
        settings = replace(known, run=without_place(run), images=fingerprint(images), **given)
    else:
        chosen: dict[str, Any] = {"strategy": STRATEGY, "eta": 0, **given}
        settings = SearchSettings(
            run=without_place(run),
            images=fingerprint(images),
            objective=_OBJECTIVE,
            bounds=Bounds(),
            **chosen,
        )
    return settings, space


def _check_sensible(request: Request) -> None:
    if request.bounds != NO_BOUNDS:
        raise UserError("bounds are for networks, and a search over schedules has one; leave --max-... out")
    if request.eta or request.rungs:
        raise UserError(
            "a schedule shows what it is worth at its end only, where images are large; leave --eta and "
            "--rungs out"
        )
    if request.objective and objective_from_text(request.objective) != _OBJECTIVE:
        raise UserError(
            "schedules take the same time and are compared by accuracy, got --objective "
            f"{request.objective}; leave it out"
        )


def _plain(space: ScheduleSpace) -> Any:  # noqa: ANN401 - plain data
    return json.loads(json.dumps(to_dict(space)))

"""Begin a study of schedules, or join one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from effnet.api import configure
from effnet.arch.io import from_dict, to_dict
from effnet.config import Config
from effnet.data.images import DataSplit
from effnet.data.sources import open_configured
from effnet.errors import UserError
from effnet.search.joining import (
    NO_BOUNDS,
    STRATEGY,
    Place,
    Request,
    begin,
    check_same,
    source_of,
    with_minival,
)
from effnet.search.ledger import Ledger
from effnet.search.objective import Objective, objective_from_text
from effnet.search.patience import Patience
from effnet.search.schedules.measuring import measure_cost
from effnet.search.schedules.space import ScheduleSpace, space_for
from effnet.search.schedules.study import ScheduleStudy
from effnet.search.settings import SearchSettings, fingerprint, without_place
from effnet.search.strategies import strategy_named
from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import network_of, prepare_experiment

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
    source = source_of(request, place)
    ledger = Ledger.find(place.url, patience=patience)
    if ledger is None:
        settings, space = _asked(request, source, threads, announce)
        ledger = begin(place, settings, to_dict(space), patience)
    try:
        study = joined_schedules(ledger, place, source)
        _check_agreed(request, study)
        place.note(source)
        study.queue_first()
    except BaseException:
        ledger.close()
        raise
    return study


def joined_schedules(ledger: Ledger, place: Place, source: str) -> ScheduleStudy:
    """Return the study of a ledger."""
    return ScheduleStudy(
        ledger=ledger,
        settings=SearchSettings.from_dict(ledger.settings, ledger.name),
        space=from_dict(ScheduleSpace, ledger.space, ledger.name),
        folder=place.folder,
        source=source,
    )


def _asked(
    request: Request, source: str, threads: int, announce: Callable[[str], None]
) -> tuple[SearchSettings, ScheduleSpace]:
    """Return what a study is to be begun with, once all of it was checked and steps were measured."""
    _check_sensible(request)
    run = _asked_run(request, source)
    images = open_configured(run.data)
    space = _asked_space(request, run, images, 1 + REPEATS)
    given: dict[str, Any] = {"strategy": STRATEGY, "eta": 0} | request.fields_given()
    settings = SearchSettings(
        run=without_place(run),
        images=fingerprint(images),
        objective=_OBJECTIVE,
        bounds=NO_BOUNDS,
        **given,
    )
    strategy_named(settings.strategy)
    announce("measuring training steps of different sizes")
    experiment = prepare_experiment(replace(run, data=replace(run.data, workers=threads)), data=images)
    with computing_threads(threads, experiment.device):
        cost = measure_cost(experiment, space.first_sizes, settings.step_seconds)
    return replace(settings, step_cost=cost), space


def _check_agreed(request: Request, study: ScheduleStudy) -> None:
    _check_sensible(request)
    settings, source = study.settings, study.source
    is_asked = request.recipe or request.model or request.changes
    run = _asked_run(request, source) if is_asked else settings.run
    images = open_configured(replace(run.data, source=source))
    ours = replace(settings, run=without_place(run), images=fingerprint(images), **request.fields_given())
    check_same(study.ledger, ours, to_dict(_asked_space(request, run, images, study.space.seeds)))


def _asked_run(request: Request, source: str) -> Config:
    recipe = request.recipe or RECIPE
    return with_minival(configure(source, recipe=recipe, model=request.model, changes=request.changes))


def _asked_space(request: Request, run: Config, images: DataSplit, seeds: int) -> ScheduleSpace:
    return space_for(
        run,
        train_size=network_of(run.model).train_size,
        train_images=len(images.train.labels),
        seeds=seeds if request.repeats is None else 1 + request.repeats,
    )


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

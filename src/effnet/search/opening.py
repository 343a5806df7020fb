"""Open a study, whatever is searched in it: networks, or schedules of one network's training."""

from __future__ import annotations

from collections.abc import Callable

from effnet.errors import UserError
from effnet.search.joining import SCHEDULES, Place, Request, joined, open_study
from effnet.search.ledger import Ledger
from effnet.search.patience import Patience
from effnet.search.schedules.joining import joined_schedules, open_schedules
from effnet.search.schedules.study import ScheduleStudy
from effnet.search.study import Study


def open_any(
    request: Request, place: Place, *, patience: Patience, threads: int, announce: Callable[[str], None]
) -> Study | ScheduleStudy:
    """Begin the study at a place, or join it; arguments as for `effnet.search.joining.open_study`.

    Raises:
        UnreachableError: There is no reaching the database.
        UserError: Something that was asked for cannot be had, or the study was begun differently.
    """
    kind = _kind(place, patience)
    wants_schedules = request.space == SCHEDULES
    if kind is not None and request.space is not None and wants_schedules != (kind == SCHEDULES):
        raise UserError(
            f"the study in {place.folder} is one of {'schedules' if kind == SCHEDULES else 'networks'}, got "
            f"--space {request.space}; leave it out, or begin another study with --study or --out"
        )
    opening = open_schedules if SCHEDULES in {kind, request.space} else open_study
    if opening is open_study and request.repeats is not None:
        raise UserError(
            "networks are trained with one seed, and only --space schedule has repeats; leave --repeats out"
        )
    return opening(request, place, patience=patience, threads=threads, announce=announce)


def opened_any(place: Place) -> Study | ScheduleStudy:
    """Open a study that is there, to look at it.

    Raises:
        UnreachableError: There is no reaching the database.
        UserError: There is no such study.
    """
    ledger = Ledger.existing(place.url)
    joining = joined_schedules if ledger.space.get("kind") == SCHEDULES else joined
    return joining(ledger, place, place.source or "")


def _kind(place: Place, patience: Patience) -> str | None:
    """Return what the study at a place searches, ``networks`` unless its space says; None: there is none."""
    ledger = Ledger.find(place.url, patience=patience)
    if ledger is None:
        return None
    with ledger:
        return str(ledger.space.get("kind", "networks"))

"""Trials of a study as rows, within a transaction of somebody else's."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, Update, and_, func, insert, or_, select, update

from effnet.arch.io import from_dict, to_dict
from effnet.search.measures import Measures
from effnet.search.records import Candidate, LateOutcome, Outcome, Rung, Trial
from effnet.search.schema import database_now, late_outcomes, trials

MOST_TRIES = 3
"""A trial that as many workers were lost in is given up: it is the likely cause."""

_GIVEN_UP = f"given up: {MOST_TRIES} workers in turn died in it or were cut off"


class Rows:
    """The rows of one study. Nothing here begins or ends a transaction."""

    def __init__(self, connection: Connection, study: int) -> None:
        self._connection = connection
        self._study = study

    def all(self) -> list[Trial]:
        """Return all trials in the order of asking."""
        query = select(trials).where(trials.c.study == self._study).order_by(trials.c.number)
        return [_trial(row._asdict()) for row in self._connection.execute(query)]

    def claimed(self, claim: str) -> Trial | None:
        """Return the trial of a claim; None once another worker has claimed it, or it was given up."""
        return self._one(trials.c.claim == claim)

    def free(self) -> int | None:
        """Return the number of the first trial that waits for a worker: queued, or its lease has run out."""
        is_free = or_(trials.c.state == "queued", _lease_is_over())
        query = (
            select(trials.c.number).where(trials.c.study == self._study, is_free).order_by(trials.c.number)
        )
        return self._connection.execute(query.limit(1)).scalar()

    def give_up(self) -> None:
        """Fail the trials that too many workers were lost in."""
        change = update(trials).where(trials.c.study == self._study, _lease_is_over())
        self._connection.execute(
            change.where(trials.c.tries >= MOST_TRIES).values(
                state="failed", reason=_GIVEN_UP, claim="", lease_until=None, ended_at=database_now()
            )
        )

    def add(self, candidate: Candidate) -> int:
        """Queue a candidate and return its number."""
        highest = select(func.max(trials.c.number)).where(trials.c.study == self._study)
        last = self._connection.execute(highest).scalar()
        number = 0 if last is None else last + 1
        self._connection.execute(
            insert(trials).values(
                study=self._study,
                number=number,
                point=json.dumps(candidate.point),
                spec=candidate.spec,
                state="queued",
                tries=0,
                owner="",
                claim="",
                reason="",
                rungs=[],
                seconds=0.0,
                asked_at=database_now(),
            )
        )
        return number

    def take(self, number: int, owner: str, claim: str, lease_seconds: float) -> Trial:
        """Lease a trial to a worker."""
        is_it = and_(trials.c.study == self._study, trials.c.number == number)
        self._connection.execute(
            update(trials)
            .where(is_it)
            .values(
                state="running",
                tries=trials.c.tries + 1,
                owner=owner,
                claim=claim,
                lease_until=database_now() + lease_seconds,
                started_at=database_now(),
            )
        )
        taken = self._one(is_it)
        assert taken is not None
        return taken

    def renew(self, claim: str, lease_seconds: float) -> bool:
        """Put off the end of a lease; say whether there was one."""
        return self._change(claim, {"lease_until": database_now() + lease_seconds})

    def note_rungs(self, claim: str, rungs: tuple[Rung, ...]) -> bool:
        """Replace the accuracies on the way; say whether the trial was running under this claim."""
        return self._change(claim, {"rungs": [[rung.epochs, rung.accuracy] for rung in rungs]})

    def finish(self, outcome: Outcome) -> bool:
        """End a trial; say whether it was running under the outcome's claim."""
        return self._change(
            outcome.claim,
            {
                "state": outcome.state,
                "measures": _plain(outcome.measures),
                "reason": outcome.reason,
                "lease_until": None,
                "ended_at": database_now(),
                "seconds": _seconds_by_now(),
            },
        )

    def release(self, claim: str) -> bool:
        """Queue a trial again as if this try had not been; say whether it was running under this claim."""
        return self._change(
            claim,
            {
                "state": "queued",
                "tries": trials.c.tries - 1,
                "claim": "",
                "lease_until": None,
                "seconds": _seconds_by_now(),
            },
        )

    def keep_late(self, outcome: Outcome) -> None:
        """Keep an outcome that does not count, once."""
        key = {"study": self._study, "number": outcome.number, "claim": outcome.claim}
        is_it = and_(*(late_outcomes.c[name] == value for name, value in key.items()))
        if self._connection.execute(select(late_outcomes.c.claim).where(is_it)).first():
            return
        self._connection.execute(
            insert(late_outcomes).values(
                **key,
                owner=outcome.owner,
                state=outcome.state,
                measures=_plain(outcome.measures),
                reason=outcome.reason,
                received_at=database_now(),
            )
        )

    def late(self) -> list[LateOutcome]:
        """Return what was kept late, in the order of coming."""
        query = select(late_outcomes).where(late_outcomes.c.study == self._study)
        rows = self._connection.execute(query.order_by(late_outcomes.c.received_at))
        return [_late(row._asdict()) for row in rows]

    def _one(self, condition: ColumnElement[bool]) -> Trial | None:
        query = select(trials).where(trials.c.study == self._study, condition)
        row = self._connection.execute(query).first()
        return None if row is None else _trial(row._asdict())

    def _change(self, claim: str, values: dict[str, object]) -> bool:
        return self._connection.execute(self._running(claim).values(values)).rowcount == 1

    def _running(self, claim: str) -> Update:
        return update(trials).where(
            trials.c.study == self._study, trials.c.claim == claim, trials.c.state == "running"
        )


def _lease_is_over() -> ColumnElement[bool]:
    return and_(trials.c.state == "running", trials.c.lease_until < database_now())


def _seconds_by_now() -> ColumnElement[float]:
    return trials.c.seconds + (database_now() - trials.c.started_at)


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(
        number=row["number"],
        point=tuple(json.loads(row["point"])),
        spec=row["spec"],
        state=row["state"],
        tries=row["tries"],
        owner=row["owner"],
        claim=row["claim"],
        lease_until=row["lease_until"],
        measures=_measures(row["measures"]),
        reason=row["reason"],
        rungs=tuple(Rung(epochs=epochs, accuracy=accuracy) for epochs, accuracy in row["rungs"]),
        seconds=row["seconds"],
        asked_at=row["asked_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _late(row: dict[str, Any]) -> LateOutcome:
    outcome = Outcome(
        number=row["number"],
        claim=row["claim"],
        owner=row["owner"],
        state=row["state"],
        measures=_measures(row["measures"]),
        reason=row["reason"],
    )
    return LateOutcome(outcome=outcome, received_at=row["received_at"])


def _plain(measures: Measures | None) -> dict[str, Any] | None:
    return None if measures is None else to_dict(measures)


def _measures(plain: object) -> Measures | None:
    return None if plain is None else from_dict(Measures, plain, "measures of a trial")

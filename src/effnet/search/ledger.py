"""The one record of a study, which any number of workers on any number of machines write to.

A worker that takes a trial has a lease on it, which it renews. A worker that dies renews nothing, and the
next one that asks takes the trial over. Every change is one transaction, under one lock, timed by the
database's clock; a worker can be killed at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, insert, select

from effnet.errors import UserError
from effnet.search.database import Database
from effnet.search.differences import differences
from effnet.search.measures import Measures
from effnet.search.patience import Patience
from effnet.search.records import Candidate, End, LateOutcome, Outcome, Rung, Trial
from effnet.search.rows import Rows
from effnet.search.schema import FORMAT, database_now, studies

LEASE_SECONDS = 120.0
_PATIENCE = Patience()

Answer = TypeVar("Answer")


class Ledger:
    """A study in a database. `open` and `existing` make one; it is also a context manager that closes itself.

    All methods may be called from several threads. Where the database is away, all but `heartbeat` wait for
    it as long as their patience says, and then raise `UnreachableError`.

    Attributes:
        settings: Of the study, as it was begun with them.
        space: As ``settings``.
        lease_seconds: How long others wait for a sign of life before they take a trial over.
    """

    def __init__(
        self, database: Database, study: dict[str, Any], lease_seconds: float, patience: Patience
    ) -> None:
        self._database = database
        self._study: int = study["id"]
        self._patience = patience
        self.settings: dict[str, Any] = study["settings"]
        self.space: dict[str, Any] = study["space"]
        self.lease_seconds = lease_seconds

    @classmethod
    def open(
        cls,
        url: str,
        settings: Mapping[str, object],
        space: Mapping[str, object],
        *,
        lease_seconds: float = LEASE_SECONDS,
        patience: Patience = _PATIENCE,
    ) -> Ledger:
        """Begin a study, or join it where it was begun.

        Args:
            url: Such as ``sqlite:///studies/flowers.db`` or ``postgresql://user@host/database``; both may end
                in ``?study=NAME``, where several studies share a database.
            settings: All that makes results comparable, as plain data for JSON.
            space: What is searched, as plain data for JSON.
            lease_seconds: How long others wait for a sign of life of this worker.
            patience: With a database that is away, once the study is open.

        Raises:
            UnreachableError: There is no reaching the database.
            UserError: The study was begun with other settings or another space; or the URL or the database is
                no good.
        """
        # Tuples become lists, as they will be when they are read back.
        ours = {"settings": json.loads(json.dumps(settings)), "space": json.loads(json.dumps(space))}
        with ExitStack() as stack:
            database = Database(url)
            stack.callback(database.close)
            database.create_tables()
            with database.writing() as connection:
                if _find(connection, database.study) is None:
                    connection.execute(
                        insert(studies).values(
                            name=database.study, format=FORMAT, created_at=database_now(), **ours
                        )
                    )
                study = _find(connection, database.study)
            assert study is not None
            _check_format(study, database.shown)
            if differing := differences({"settings": study["settings"], "space": study["space"]}, ours):
                raise UserError(
                    f"the study {database.shown} was begun differently: {differing}; give what it was begun "
                    "with, or another --study"
                )
            stack.pop_all()
        return cls(database, study, lease_seconds, patience)

    @classmethod
    def find(
        cls, url: str, *, lease_seconds: float = LEASE_SECONDS, patience: Patience = _PATIENCE
    ) -> Ledger | None:
        """Join a study, whatever its settings and space are.

        Returns:
            The study; None where none of that name was begun.

        Raises:
            UnreachableError: There is no reaching the database.
            UserError: The URL or the database is no good.
        """
        with ExitStack() as stack:
            database = Database(url)
            stack.callback(database.close)
            if not database.has_tables():
                return None
            with database.reading() as connection:
                study = _find(connection, database.study)
            if study is None:
                return None
            _check_format(study, database.shown)
            stack.pop_all()
        return cls(database, study, lease_seconds, patience)

    @classmethod
    def existing(
        cls, url: str, *, lease_seconds: float = LEASE_SECONDS, patience: Patience = _PATIENCE
    ) -> Ledger:
        """Join a study that must be there, as `find`.

        Raises:
            UnreachableError: There is no reaching the database.
            UserError: There is no such study; or the URL or the database is no good.
        """
        ledger = cls.find(url, lease_seconds=lease_seconds, patience=patience)
        if ledger is None:
            database = Database(url)
            raise UserError(f"there is no study '{database.study}' in {database.shown}")
        return ledger

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    @property
    def name(self) -> str:
        """For messages: the URL without its password."""
        return self._database.shown

    def trials(self) -> list[Trial]:
        """Return all trials in the order of asking."""
        return self._read(Rows.all)

    def late_outcomes(self) -> list[LateOutcome]:
        """Return what came from workers that had lost their trials, in the order of coming."""
        return self._read(Rows.late)

    def queue(self, candidates: Sequence[Candidate]) -> None:
        """Put candidates before all that will be proposed; those that the study has already are left out."""

        def attempt(rows: Rows) -> None:
            known = {trial.point for trial in rows.all()}
            for candidate in candidates:
                if candidate.point not in known:
                    rows.add(candidate)
                    known.add(candidate.point)

        self._write(attempt)

    def ask(
        self, propose: Callable[[Sequence[Trial]], Candidate], owner: str, *, limit: int | None = None
    ) -> Trial | None:
        """Take a trial: one that is queued or whose worker is gone, else a new one.

        Args:
            propose: Told all trials so far, it returns a candidate that is not among them, within a minute.
                It is called while nobody else can write, and perhaps more than once; what it raises is passed
                on, and leaves the ledger as it was.
            owner: Name of the worker, for people.
            limit: Trials of the study, beyond which none is proposed.

        Returns:
            The trial, running and ours until the lease ends; or None where the limit is reached. Trials that
            others are running may become free yet.

        Raises:
            UnreachableError: The database was away for longer than our patience.
            ValueError: The candidate was tried already.
        """
        claim = uuid4().hex

        def attempt(rows: Rows) -> Trial | None:
            # Where only the answer to an earlier attempt was lost, the trial is ours already.
            if ours := rows.claimed(claim):
                return ours
            rows.give_up()
            number = rows.free()
            if number is None:
                history = rows.all()
                if limit is not None and len(history) >= limit:
                    return None
                candidate = propose(history)
                if any(trial.point == candidate.point for trial in history):
                    raise ValueError(f"{candidate.point} was proposed, which was tried already")
                number = rows.add(candidate)
            return rows.take(number, owner, claim, self.lease_seconds)

        return self._write(attempt)

    def heartbeat(self, trial: Trial) -> bool:
        """Renew the lease, now or not at all.

        Returns:
            Whether the trial is still ours.

        Raises:
            UnreachableError: The database is away.
        """
        with self._database.writing() as connection:
            return Rows(connection, self._study).renew(trial.claim, self.lease_seconds)

    def report_rung(self, trial: Trial, rung: Rung) -> bool:
        """Note an accuracy on the way, in place of one after as many epochs.

        Returns:
            Whether the trial is still ours; if not, nothing is noted.
        """

        def attempt(rows: Rows) -> bool:
            current = rows.claimed(trial.claim)
            if current is None:
                return False
            by_epochs = {old.epochs: old for old in current.rungs} | {rung.epochs: rung}
            return rows.note_rungs(trial.claim, tuple(by_epochs[epochs] for epochs in sorted(by_epochs)))

        return self._write(attempt)

    def finish(self, trial: Trial, state: End, measures: Measures | None = None, reason: str = "") -> bool:
        """Say how a trial ended, as `deliver`."""
        outcome = Outcome(
            number=trial.number,
            claim=trial.claim,
            owner=trial.owner,
            state=state,
            measures=measures,
            reason=reason,
        )
        return self.deliver(outcome)

    def deliver(self, outcome: Outcome) -> bool:
        """Say how a trial ended. To say it again is no harm.

        Returns:
            Whether it counts. If not, another worker has taken the trial over, or it was given up; the
            outcome is then kept among the late ones.
        """

        def attempt(rows: Rows) -> bool:
            if rows.finish(outcome) or rows.claimed(outcome.claim):
                return True
            rows.keep_late(outcome)
            return False

        return self._write(attempt)

    def release(self, trial: Trial) -> bool:
        """Hand a trial back, for whoever asks next; the try does not count.

        Returns:
            Whether it was ours.
        """
        return self._write(lambda rows: rows.release(trial.claim))

    def _read(self, attempt: Callable[[Rows], Answer]) -> Answer:
        def once() -> Answer:
            with self._database.reading() as connection:
                return attempt(Rows(connection, self._study))

        return self._patience.persist(once)

    def _write(self, attempt: Callable[[Rows], Answer]) -> Answer:
        def once() -> Answer:
            with self._database.writing() as connection:
                return attempt(Rows(connection, self._study))

        return self._patience.persist(once)


def _find(connection: Connection, name: str) -> dict[str, Any] | None:
    row = connection.execute(select(studies).where(studies.c.name == name)).first()
    return None if row is None else row._asdict()


def _check_format(study: dict[str, Any], shown: str) -> None:
    if study["format"] > FORMAT:
        raise UserError(f"the study {shown} was begun by a later version of effnet; update this one")

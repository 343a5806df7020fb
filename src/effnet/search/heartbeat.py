"""Signs of life of a worker while it is busy with something else."""

from __future__ import annotations

from threading import Event, Thread

from effnet.errors import UnreachableError, UserError
from effnet.search.ledger import Ledger
from effnet.search.records import Trial

_BEATS_PER_LEASE = 4
"""So that a few may fail before the lease ends."""


class Heartbeat:
    """Renews the lease on a trial within a ``with`` block.

    A database that is away for a while is asked again and again. If the worker dies, so do the signs of life.

    Args:
        ledger: Of the study.
        trial: As `Ledger.ask` returned it.
    """

    def __init__(self, ledger: Ledger, trial: Trial) -> None:
        self._ledger = ledger
        self._trial = trial
        self._stop, self._lost = Event(), Event()
        self._thread = Thread(target=self._run, name=f"heartbeat of trial {trial.number}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def is_lost(self) -> bool:
        """Whether another worker has the trial now; what comes of it here will not count."""
        return self._lost.is_set()

    def _run(self) -> None:
        while not self._stop.wait(self._ledger.lease_seconds / _BEATS_PER_LEASE):
            try:
                is_ours = self._ledger.heartbeat(self._trial)
            except (UnreachableError, UserError):
                # It will be said when the trial's outcome is reported.
                continue
            if not is_ours:
                self._lost.set()
                return

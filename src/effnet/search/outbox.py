"""Outcomes on their way to the ledger, kept in files until it has them."""

from __future__ import annotations

import json
from pathlib import Path

from effnet.arch.io import from_dict, to_dict
from effnet.files import write_json
from effnet.search.ledger import Ledger
from effnet.search.records import Outcome


class Outbox:
    """A folder of outcomes that were not delivered yet: they survive the worker and the database.

    Args:
        folder: Made when it is needed; each worker may have its own, or all of a machine the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, ledger: Ledger, outcome: Outcome) -> bool:
        """Keep an outcome, deliver it, and keep it no longer.

        Returns:
            Whether it counts, as `Ledger.deliver`.

        Raises:
            UnreachableError, UserError: It could not be delivered; it is kept.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{outcome.number}-{outcome.claim}.json"
        write_json(path, to_dict(outcome))
        return _deliver(ledger, outcome, path)

    def send_left(self, ledger: Ledger) -> int:
        """Deliver what is kept from earlier, and return how many there were.

        Raises:
            UnreachableError, UserError: As `send`.
        """
        delivered = 0
        for path in sorted(self._folder.glob("[0-9]*.json")):
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                # Its own worker, or another of the same folder, was faster.
                continue
            _deliver(ledger, from_dict(Outcome, json.loads(text), str(path)), path)
            delivered += 1
        return delivered


def _deliver(ledger: Ledger, outcome: Outcome, path: Path) -> bool:
    counts = ledger.deliver(outcome)
    path.unlink(missing_ok=True)
    return counts

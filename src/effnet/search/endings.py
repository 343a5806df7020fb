"""How the trials of a study have ended, counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from effnet.search.records import Trial


def states_of(trials: Sequence[Trial]) -> dict[str, int]:
    """Return how many trials are in each state."""
    return dict(Counter(trial.state for trial in trials))


def reasons_of(trials: Sequence[Trial]) -> list[tuple[str, str, int]]:
    """Return state, reason and number of the trials that did not end as planned, the most frequent first.

    Reasons that differ in numbers alone are one; the first of them is given.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        if trial.reason:
            kind = re.sub(r"\d[\d.,]*", "#", trial.reason)
            found.setdefault((trial.state, kind), []).append(trial.reason)
    counted = [(state, reasons[0], len(reasons)) for (state, _), reasons in found.items()]
    return sorted(counted, key=lambda each: -each[2])

"""What differs between the configurations of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effnet.reporting.facts import RunFacts
from effnet.reporting.repeating import shown
from effnet.training.same_run import flat_values


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A value in which some runs differ."""

    key: str
    """``section.name``."""
    values: tuple[str, ...]
    """One a run, as after ``--set``; a dash where it is left out."""


def differences(runs: Sequence[RunFacts]) -> tuple[Difference, ...]:
    """Return every value that is not the same in all runs, in the order of the configuration."""
    each = [dict(flat_values(run.config)) for run in runs]
    keys = dict.fromkeys(key for values in each for key in values)
    return tuple(
        Difference(key=key, values=tuple(shown(values.get(key)) for values in each))
        for key in keys
        if any(values.get(key) != each[0].get(key) for values in each[1:])
    )

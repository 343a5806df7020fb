"""What the best networks of a study have in common, stage by stage, beside all that were tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from effnet.arch.spec import NetworkSpec
from effnet.search.points import Value
from effnet.search.space import FIELDS, WITHOUT, SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How common a value is."""

    field: str
    """One of `effnet.search.space.FIELDS`."""
    stage: int
    """Counted from 1."""
    value: Value
    best: float
    """Share of the best networks that have it."""
    tried: float
    """Share of all networks that were tried."""
    in_winner: bool


def shares(
    space: SearchSpace, *, best: Sequence[NetworkSpec], tried: Sequence[NetworkSpec], winner: NetworkSpec
) -> list[Share]:
    """Return the share of every value that the space leaves a choice about.

    The shares of a field need not sum to 1: a ``conv`` has no expansion, a stage that was left out nothing.

    Args:
        space: Of all the networks.
        best: Not empty.
        tried: Not empty.
        winner: The best one.
    """
    return [
        Share(
            field=field,
            stage=index + 1,
            value=value,
            best=_share(best, index, field, value),
            tried=_share(tried, index, field, value),
            in_winner=_value(winner, index, field) == value,
        )
        for field, index, value in _choices(space)
    ]


def most_common(found: Sequence[Share]) -> list[Share]:
    """Return the value of each field and stage that most of the best have, in the order of the stages."""
    leading: dict[tuple[int, str], Share] = {}
    for share in found:
        key = (share.stage, share.field)
        if key not in leading or share.best > leading[key].best:
            leading[key] = share
    return sorted(leading.values(), key=lambda share: (share.stage, FIELDS.index(share.field)))


def _choices(space: SearchSpace) -> Iterator[tuple[str, int, Value]]:
    for field in FIELDS:
        for index, choices in enumerate(space.stages):
            values = getattr(choices, field)
            if len(values) > 1:
                yield from ((field, index, value) for value in values)


def _share(specs: Sequence[NetworkSpec], index: int, field: str, value: Value) -> float:
    return sum(_value(spec, index, field) == value for spec in specs) / len(specs)


def _value(spec: NetworkSpec, index: int, field: str) -> Value | None:
    """Return what a stage has; None: it was left out, or its operation has no such thing."""
    if index >= len(spec.stages):
        return 0 if field == "repeats" else None
    stage = spec.stages[index]
    value: Value | None = None if field in WITHOUT.get(stage.operation, ()) else getattr(stage, field)
    return value

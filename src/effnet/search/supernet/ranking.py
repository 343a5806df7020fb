"""Many networks of a space in the order of their accuracy with the supernet's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from effnet.arch.accounting import NetworkCost, network_cost
from effnet.arch.io import spec_to_json
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.search.points import Point
from effnet.search.supernet.envelope import NetworkDomain
from effnet.search.supernet.sandwich import random_point
from effnet.search.supernet.training import SupernetTraining
from effnet.search.supernet.yardstick import Yardstick

_TRIES_A_POINT = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A network of the space, and how it does with the supernet's weights."""

    spec: NetworkSpec
    """With the classes of the data."""
    point: Point
    accuracy: float
    """Top-1 on the minival with statistics of its own, as a fraction; lower than what it reaches alone."""

    image_size: int
    """Side in pixels at which that was measured."""

    @property
    def cost(self) -> NetworkCost:
        """Parameters and multiply-adds at the size at which it was measured."""
        return network_cost(self.spec, self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """Return what a ranking says of it."""
        return {
            "name": self.spec.name,
            "point": list(self.point),
            "accuracy": self.accuracy,
            "image_size": self.image_size,
            "params": self.cost.params,
            "macs": self.cost.macs,
        }


def random_points(domain: NetworkDomain, number: int, *, seed: int) -> list[Point]:
    """Draw so many different networks of a space; all that were found where it has fewer."""
    draws, points = Random(f"candidates {seed}"), dict[Point, None]()
    for _ in range(_TRIES_A_POINT * number):
        if len(points) == number:
            break
        points[random_point(domain, draws)] = None
    return list(points)


def measure(
    training: SupernetTraining,
    yardstick: Yardstick,
    points: Sequence[Point],
    report: Callable[[int, Ranked], None],
) -> list[Ranked]:
    """Measure networks one by one with the supernet's (averaged) weights.

    Args:
        training: Finished.
        yardstick: By which.
        points: Of the space, canonical.
        report: Told how many are done, and the last one.

    Returns:
        In the order of ``points``.
    """
    state, ranked = training.state, list[Ranked]()
    with state.ema.swapped_into(state.model) if state.ema else nullcontext():
        for point in points:
            spec = training.adapted(training.domain.spec(point))
            accuracy = yardstick.accuracy(yardstick.calibrated(state.model, spec))
            size = yardstick.preprocessing.image_size
            ranked.append(Ranked(spec=spec, point=point, accuracy=accuracy, image_size=size))
            report(len(ranked), ranked[-1])
    return ranked


def in_order(ranked: Iterable[Ranked]) -> list[Ranked]:
    """Return networks, the best first; of equal ones the smaller one first."""
    return sorted(ranked, key=lambda one: (-one.accuracy, one.cost.macs))


def write_best(folder: Path, best: Sequence[Ranked]) -> list[Path]:
    """Write specs that ``effnet train --model FILE`` takes.

    Args:
        folder: Made where there is none; the specs of an earlier ranking in it are removed.
        best: In their order.

    Raises:
        UserError: There is nothing to write.
    """
    if not best:
        raise UserError("no network has been ranked; rank some with --rank N")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.json"):
        old.unlink()
    paths = []
    for place, one in enumerate(best, start=1):
        paths.append(folder / f"{place:03}-{one.spec.name}.json")
        with whole_file(paths[-1]) as temporary:
            temporary.write_text(spec_to_json(one.spec), encoding="utf-8")
    return paths

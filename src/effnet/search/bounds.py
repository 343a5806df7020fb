"""What a candidate must not exceed: counted before anything is built, or measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

from pydantic.dataclasses import dataclass

from effnet.arch.accounting import network_cost
from effnet.arch.spec import SPEC_CONFIG, Count, NetworkSpec, StageSpec
from effnet.errors import UserError
from effnet.search.measures import Measures, Positive
from effnet.search.points import Point, Variable
from effnet.search.space import SearchSpace

BOUNDED = ("params", "macs", "step_ms", "latency_ms", "memory_mb")
"""The measures that have a bound, which is named ``max_`` and the measure."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Bounds:
    """The largest values that a candidate may have; None: any.

    Raises:
        pydantic.ValidationError: A value is outside its range.
    """

    max_params: Count | None = None
    """Trainable parameters, with the classifier for the data's classes."""
    max_macs: Count | None = None
    """Multiply-adds of a forward pass at the search's evaluation size."""
    max_step_ms: Positive | None = None
    """Training step in milliseconds, as `Measures` has it."""
    max_latency_ms: Positive | None = None
    """Forward pass of one image in milliseconds."""
    max_memory_mb: Positive | None = None
    """Peak of a training step in 2^20 bytes."""

    def excess(self, measures: Measures) -> str | None:
        """Return the first bound that a candidate exceeds, for people; None: it is within all.

        Args:
            measures: What is None exceeds nothing.
        """
        for name in BOUNDED:
            bound, value = getattr(self, f"max_{name}"), getattr(measures, name)
            if bound is not None and value is not None and value > bound:
                return f"{name} is {_number(value)}, over max_{name} of {_number(bound)}"
        return None

    def check_some_within(self, tried: Sequence[Measures], what: str) -> None:
        """Refuse bounds that nothing is within.

        Args:
            tried: Of all networks, or of those that are smallest in some respect; not empty.
            what: They are, such as ``network of the space v2``.

        Raises:
            UserError: All exceed a bound; the message names the bounds that exclude all by themselves and the
                smallest value that there is, or says that none does so alone.
        """
        if any(self.excess(measures) is None for measures in tried):
            return
        reasons = [
            f"max_{name} is {_number(bound)}, and the smallest has {_number(smallest)}"
            for name in BOUNDED
            if (bound := getattr(self, f"max_{name}")) is not None
            and (smallest := _smallest(tried, name)) is not None
            and smallest > bound
        ]
        if not reasons:
            given = [name for name in BOUNDED if getattr(self, f"max_{name}") is not None]
            together = " and ".join(
                f"max_{name} of {_number(getattr(self, f'max_{name}'))}" for name in given
            )
            reasons = [f"{together} exclude all together, none of them alone"]
        raise UserError(
            f"no {what} is within the bounds: {'; '.join(reasons)}; raise the bound, or search around a "
            "smaller backbone"
        )


@dataclass(frozen=True, kw_only=True, config=SPEC_CONFIG)
class BoundedSpace:
    """A space without what is over a bound that can be counted: an `effnet.search.points.Domain`."""

    space: SearchSpace
    bounds: Bounds
    image_size: Count
    """Side in pixels of the images that multiply-adds are counted for."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Those of the space."""
        return self.space.variables

    def canonical(self, point: Point) -> Point:
        """Return the one point that stands for all that mean the same network."""
        return self.space.canonical(point)

    def is_feasible(self, point: Point) -> bool:
        """Whether a canonical point is in the space and within the bounds that can be counted."""
        if point not in self._known:
            inside = self.space.is_feasible(point)
            self._known[point] = inside and self.bounds.excess(self.counted(point)) is None
        return self._known[point]

    def counted(self, point: Point) -> Measures:
        """Return parameters and multiply-adds, and nothing that must be measured."""
        return count(self.space.spec(point), self.image_size)

    @cached_property
    def smallest(self) -> tuple[Point, ...]:
        """The networks for which none has both fewer parameters and fewer multiply-adds, of equal ones one.

        They are found exactly, without counting the whole space. Those within the bounds are where a search
        can start that finds nothing at random.
        """
        return tuple(self.space.point(spec) for spec in smallest_networks(self.space, self.image_size))

    @cached_property
    def anchors(self) -> tuple[Point, ...]:
        """The smallest networks, as far as they are within the bounds."""
        return tuple(point for point in self.smallest if self.is_feasible(point))

    def check(self) -> None:
        """Refuse bounds that exclude the whole space.

        Raises:
            UserError: Nothing is feasible; the message names the bound and the smallest value that there is.
        """
        counted = [self.counted(point) for point in self.smallest]
        self.bounds.check_some_within(
            counted, f"network of the space {self.space.name} around {self.space.backbone.name}"
        )

    @cached_property
    def _known(self) -> dict[Point, bool]:
        return {}


def count(spec: NetworkSpec, image_size: int) -> Measures:
    """Return what can be said of a network without building it: parameters and multiply-adds.

    Args:
        spec: The network.
        image_size: Side in pixels.
    """
    cost = network_cost(spec, image_size)
    return Measures(params=cost.params, macs=cost.macs)


_Path: TypeAlias = tuple[tuple[int, int], tuple[StageSpec, ...]]
"""Parameters and multiply-adds of some stages, and the stages."""


def smallest_networks(space: SearchSpace, image_size: int) -> list[NetworkSpec]:
    """Return the front of fewest parameters and fewest multiply-adds of a space, exactly.

    Both are sums over stages, and a stage depends on those before it by its input channels alone; so only
    what is smallest for each number of channels is carried on.

    Args:
        space: What to choose from.
        image_size: Side in pixels.
    """
    backbone, size = space.backbone, -(-image_size // 2)
    if backbone.stem_pooling:
        size = -(-size // 2)
    paths: dict[int, list[_Path]] = {backbone.stem_channels: [((0, 0), ())]}
    for index, stage in enumerate(backbone.stages):
        after: dict[int, list[_Path]] = {}
        for in_channels, ways in paths.items():
            for out_channels, steps in _smallest_stages(space, index, in_channels, size).items():
                sums = [(_sum(way[0], step[0]), way[1] + step[1]) for way in ways for step in steps]
                after.setdefault(out_channels, []).extend(sums)
        paths = {channels: _smallest_paths(ways) for channels, ways in after.items()}
        size = -(-size // stage.stride)
    networks = [replace(backbone, stages=stages) for ways in paths.values() for _, stages in ways]
    costs = [network_cost(spec, image_size) for spec in networks]
    whole = [((cost.params, cost.macs), spec.stages) for cost, spec in zip(costs, networks, strict=True)]
    return [replace(backbone, stages=stages) for _, stages in _smallest_paths(whole)]


def _smallest_stages(space: SearchSpace, index: int, in_channels: int, size: int) -> dict[int, list[_Path]]:
    """Return the smallest choices of a stage for each number of output channels."""
    found: dict[int, list[_Path]] = {}
    for row in space.rows(index, in_channels):
        stage = space.stage(index, row, in_channels)
        out_channels = stage.channels if stage else in_channels
        path = (_stage_cost(space.backbone, stage, in_channels, size), (stage,)) if stage else ((0, 0), ())
        found.setdefault(out_channels, []).append(path)
    return {channels: _smallest_paths(paths) for channels, paths in found.items()}


def _stage_cost(backbone: NetworkSpec, stage: StageSpec, in_channels: int, size: int) -> tuple[int, int]:
    # The stem halves the image.
    unpooled = replace(backbone, stem_channels=in_channels, stem_pooling=False, stages=(stage,))
    alone = network_cost(unpooled, 2 * size)
    layers = [layer for layer in alone.layers if layer.name.startswith("stages.")]
    return sum(layer.params for layer in layers), sum(layer.macs for layer in layers)


def _smallest_paths(paths: Iterable[_Path]) -> list[_Path]:
    return list(_descending(sorted(paths, key=lambda path: path[0])))


def _descending(paths: Iterable[_Path]) -> Iterator[_Path]:
    fewest = float("inf")
    for path in paths:
        if path[0][1] < fewest:
            fewest = path[0][1]
            yield path


def _sum(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return first[0] + second[0], first[1] + second[1]


def _smallest(tried: Iterable[Measures], name: str) -> float | None:
    return min((value for measures in tried if (value := getattr(measures, name)) is not None), default=None)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"

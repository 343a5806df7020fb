"""What a space needs room for: of each stage the largest block of every kind that shares no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby, product
from typing import Protocol

from effnet.arch.spec import BlockSpec, NetworkSpec, Operation, StageSpec
from effnet.errors import UserError
from effnet.search.points import Domain, Point, Variable


class NetworkDomain(Domain, Protocol):
    """Points that are networks, such as a `effnet.search.space.SearchSpace`."""

    def spec(self, point: Point) -> NetworkSpec:
        """Return the network of a canonical point."""


@dataclass(frozen=True, slots=True, order=True)
class Branch:
    """A kind of block that has weights of its own: kernels and widths of one branch contain each other's."""

    operation: Operation
    expands: bool
    """Without expansion there is no first 1 x 1 (of Fused-MBConv, no last one), so nothing can be shared."""

    @classmethod
    def of(cls, stage: StageSpec) -> Branch:
        """Return the branch that the blocks of a stage take."""
        return cls(stage.operation, stage.expand_ratio > 1)

    @property
    def name(self) -> str:
        """Name of the branch's modules, such as ``mbconv`` or ``mbconv_plain``."""
        return self.operation if self.expands or self.operation == "conv" else f"{self.operation}_plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The largest network of a space, and the largest form of every branch of its stages."""

    largest: NetworkSpec
    """Of every stage the branch that expands most, or one of them."""
    forms: tuple[tuple[StageSpec, ...], ...]
    """Of each stage one for each branch, with the largest value of everything, SE where its operation has it,
    and residuals where all networks have them."""
    depths: tuple[int, ...]
    """Numbers of stages that networks have: a space may leave out the last stage. Ascending."""

    def blocks(self, stage: int) -> Iterator[dict[str, BlockSpec]]:
        """Yield for each block of a stage (counted from 0) the largest form of every branch, by its name."""
        forms = self.forms[stage]
        names = [Branch.of(form).name for form in forms]
        for blocks in zip(*(self._blocks(stage, form) for form in forms), strict=True):
            yield dict(zip(names, blocks, strict=True))

    def with_constants(self, spec: NetworkSpec) -> Envelope:
        """Return the same envelope with what another network has that is not of its stages."""
        return replace(self, largest=with_constants(self.largest, spec))

    def _blocks(self, stage: int, form: StageSpec) -> list[BlockSpec]:
        before, behind = self.largest.stages[:stage], self.largest.stages[stage + 1 :]
        spec = replace(self.largest, stages=(*before, form, *behind))
        return [block for block in spec.blocks() if block.stage == stage]


def envelope_of(domain: NetworkDomain) -> Envelope:
    """Return what all networks of a space fit into.

    Raises:
        UserError: The space has bottlenecks, or networks that differ in strides, stem or head.
    """
    return _envelope([domain.spec(domain.canonical(point)) for point in corners(domain.variables)])


def corners(variables: Sequence[Variable]) -> list[Point]:
    """Return points that have every value, and of two variables of a stage every pair of values."""
    # The last values: with the first ones a stage might be left out, and all its values with it.
    base = tuple(len(variable.values) - 1 for variable in variables)
    points = {base}
    for _, group in groupby(enumerate(variables), key=lambda pair: pair[1].name.partition(".")[0]):
        indices = [index for index, _ in group]
        for chosen in combinations(indices, min(2, len(indices))):
            for values in product(*(range(len(variables[index].values)) for index in chosen)):
                point = list(base)
                for index, value in zip(chosen, values, strict=True):
                    point[index] = value
                points.add(tuple(point))
    return sorted(points)


def with_constants(spec: NetworkSpec, other: NetworkSpec) -> NetworkSpec:
    """Return a network with the classes, activation, padding, norms and sizes of another one."""
    return replace(
        spec,
        image_size=other.image_size,
        train_size=other.train_size,
        activation=other.activation,
        padding=other.padding,
        norm_epsilon=other.norm_epsilon,
        norm_momentum=other.norm_momentum,
        in_channels=other.in_channels,
        num_classes=other.num_classes,
    )


def _envelope(specs: Sequence[NetworkSpec]) -> Envelope:
    first = specs[0]
    for spec in specs:
        _check_shared(first, spec)
    if any(stage.operation == "bottleneck" for spec in specs for stage in spec.stages):
        raise UserError("a supernet has no bottleneck stages; search that space without one")
    depths = tuple(sorted({len(spec.stages) for spec in specs}))
    forms = tuple(
        _forms([spec.stages[stage] for spec in specs if stage < len(spec.stages)])
        for stage in range(depths[-1])
    )
    stages = tuple(max(alternatives, key=lambda form: form.expand_ratio) for alternatives in forms)
    largest = replace(first, name="supernet", stages=stages)
    return Envelope(largest=largest, forms=forms, depths=depths)


def _forms(stages: Sequence[StageSpec]) -> tuple[StageSpec, ...]:
    """Return the largest form of every branch that a stage has in any network of a space."""
    branches = sorted({Branch.of(stage) for stage in stages})
    se_ratios = {
        branch.operation: max(stage.se_ratio for stage in stages if stage.operation == branch.operation)
        for branch in branches
    }
    return tuple(
        replace(
            stages[0],
            operation=branch.operation,
            kernel_size=max(stage.kernel_size for stage in stages),
            expand_ratio=max(stage.expand_ratio for stage in stages) if branch.expands else 1,
            se_ratio=se_ratios[branch.operation],
            channels=max(stage.channels for stage in stages),
            repeats=max(stage.repeats for stage in stages),
            residual=all(stage.residual for stage in stages),
        )
        for branch in branches
    )


def _check_shared(first: NetworkSpec, other: NetworkSpec) -> None:
    def shared(spec: NetworkSpec) -> tuple[object, ...]:
        return (
            spec.stem_channels,
            spec.stem_kernel_size,
            spec.stem_pooling,
            spec.head_channels,
            spec.activation,
            spec.padding,
            tuple(stage.stride for stage in spec.stages[: min(len(first.stages), len(other.stages))]),
        )

    if shared(first) != shared(other):
        raise UserError(
            f"networks of the space differ in stem, head, strides, activation or padding ({first.name}, "
            f"{other.name}), which a supernet cannot share; search that space without one"
        )

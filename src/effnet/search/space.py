"""The networks a search chooses from: a backbone, and for each of its stages the values it may have.

Stages are indexed from 0 in code and counted from 1 in names and messages, as everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.io import to_dict
from effnet.arch.spec import SPEC_CONFIG, Count, NetworkSpec, Operation, StageSpec
from effnet.errors import UserError
from effnet.search.points import Point, Value, Variable, is_inside

FIELDS = ("operation", "kernel_size", "expand_ratio", "repeats", "channels", "se_ratio", "residual")
"""What is chosen for a stage, in the order of its variables."""
_SAME = (
    "stem_channels",
    "stem_kernel_size",
    "stem_pooling",
    "head_channels",
    "activation",
    "padding",
    "in_channels",
)
"""What all networks of a space have from the backbone, as far as it changes their layers."""

WITHOUT: dict[str, tuple[str, ...]] = {
    "conv": ("expand_ratio", "se_ratio"),
    "fused_mbconv": ("se_ratio",),
    "separable": ("expand_ratio", "se_ratio"),
    "bottleneck": ("se_ratio",),
}
"""The choices that an operation does not have."""

Row: TypeAlias = dict[str, Any]
"""A value for each of `FIELDS`."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StageChoices:
    """What a stage may be; one value where there is nothing to choose.

    Raises:
        pydantic.ValidationError: There is no value for a field, one value twice, or one outside its range.
    """

    operation: Annotated[tuple[Operation, ...], Field(min_length=1)]
    kernel_size: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Odd, in pixels."""
    expand_ratio: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Not for ``conv`` and ``separable``, which have none."""
    repeats: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Blocks; 0 leaves the stage out, which is possible for the last stage alone."""
    channels: Annotated[tuple[Count, ...], Field(min_length=1)]
    se_ratio: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Field(min_length=1)]
    """For ``mbconv``; other operations have no squeeze-and-excitation in a search, as in the V2 networks."""
    residual: Annotated[tuple[bool, ...], Field(min_length=1)] = (True,)
    """Whether blocks that keep the shape add their input to their output; MnasNet's ``skip``."""

    def __post_init__(self) -> None:
        for field in FIELDS:
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} must have each value once, got {list(values)}")
        if even := [kernel for kernel in self.kernel_size if kernel % 2 == 0]:
            raise ValueError(f"kernel_size must be odd, got {even[0]}")
        if "bottleneck" in self.operation:
            for channels, ratio in product(self.channels, self.expand_ratio):
                if channels % ratio:
                    raise ValueError(
                        "channels of a stage that may be a bottleneck must be multiples of each "
                        f"expand_ratio, got {channels} and {ratio}"
                    )


@dataclass(frozen=True, kw_only=True, config=SPEC_CONFIG)
class SearchSpace:
    """All networks that differ from a backbone in their stages alone: an `effnet.search.points.Domain`.

    Stem, head, strides, activation and image sizes are those of the backbone. A point has an index for each
    field that has more than one value, stage by stage. What makes no difference (the expansion of a ``conv``,
    everything about a stage that is left out) has index 0 in a canonical point, so that each network has one.

    Raises:
        pydantic.ValidationError: The number of stages is not the backbone's, or a stage that cannot be left
            out may have no blocks.
    """

    name: Annotated[str, Field(min_length=1)]
    """What the names of the networks begin with."""
    backbone: NetworkSpec
    stages: tuple[StageChoices, ...]
    """One for each stage of the backbone."""

    def __post_init__(self) -> None:
        ours, theirs = len(self.stages), len(self.backbone.stages)
        if ours != theirs:
            raise ValueError(f"stages must be as many as the backbone's {theirs}, got {ours}")
        last = theirs - 1
        for index, choices in enumerate(self.stages):
            droppable = index == last > 0 and self.backbone.stages[index].stride == 1
            if 0 in choices.repeats and not droppable:
                raise ValueError(
                    f"repeats of stage {index + 1} must be at least 1: "
                    "only a last stage of stride 1 can be left out"
                )

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """The choices that there are, named such as ``stage3.kernel_size``."""
        return tuple(
            Variable(name=f"stage{index + 1}.{field}", values=getattr(choices, field))
            for index, choices in enumerate(self.stages)
            for field in _free(choices)
        )

    @cached_property
    def _free_fields(self) -> tuple[tuple[str, ...], ...]:
        return tuple(_free(choices) for choices in self.stages)

    def canonical(self, point: Point) -> Point:
        """Return the one point that stands for all that mean the same network."""
        indices: list[int] = []
        in_channels = self.backbone.stem_channels
        for index, row in enumerate(self._rows(point)):
            inert = self._inert(index, row, in_channels)
            start = len(indices)
            indices += [
                0 if field in inert else point[start + place]
                for place, field in enumerate(self._free_fields[index])
            ]
            in_channels = row["channels"]
        return tuple(indices)

    def is_feasible(self, point: Point) -> bool:
        """Whether every index is one of its variable; a space alone has no bounds."""
        return is_inside(point, self.variables)

    def spec(self, point: Point) -> NetworkSpec:
        """Return the network that a point means, named by the space and a hash of its stages."""
        stages: list[StageSpec] = []
        in_channels = self.backbone.stem_channels
        for index, row in enumerate(self._rows(point)):
            if row["repeats"]:
                stages.append(self._stage(index, row, in_channels))
                in_channels = row["channels"]
        spec = replace(self.backbone, stages=tuple(stages))
        return replace(spec, name=f"{self.name}-{spec_hash(spec)[:8]}")

    def point(self, spec: NetworkSpec) -> Point:
        """Return the canonical point of a network, whatever its name, its classes and its image sizes.

        Raises:
            UserError: The network is not in the space; the message names the first difference.
        """
        for field in _SAME:
            ours, theirs = getattr(self.backbone, field), getattr(spec, field)
            if ours != theirs:
                raise self._outside(spec, f"{field} is {theirs!r}, and the backbone's {ours!r}")
        missing = len(self.stages) - len(spec.stages)
        if not 0 <= missing <= (0 in self.stages[-1].repeats):
            raise self._outside(
                spec, f"it has {len(spec.stages)} stages, and the backbone {len(self.stages)}"
            )
        indices: list[int] = []
        in_channels = spec.stem_channels
        for index, stage in enumerate(spec.stages):
            indices += self._stage_indices(index, spec, stage, in_channels)
            in_channels = stage.channels
        if missing:
            dropped = self.stages[-1].repeats.index(0)
            indices += [dropped if field == "repeats" else 0 for field in self._free_fields[-1]]
        return tuple(indices)

    def text(self, point: Point) -> str:
        """Return a point's network for people, a word a stage; equal text means the same network."""
        return spec_text(self.spec(point))

    def hash(self, point: Point) -> str:
        """Return 64 hexadecimal digits that only points of the same network share."""
        return spec_hash(self.spec(point))

    def count(self) -> int:
        """Return how many different networks there are."""
        networks = {self.backbone.stem_channels: 1}
        for index in range(len(self.stages)):
            after: dict[int, int] = {}
            for in_channels, number in networks.items():
                for row in self.rows(index, in_channels):
                    out_channels = row["channels"] if row["repeats"] else in_channels
                    after[out_channels] = after.get(out_channels, 0) + number
            networks = after
        return sum(networks.values())

    def rows(self, index: int, in_channels: int) -> Iterator[Row]:
        """Yield what a stage can be, each once, behind a layer of ``in_channels``.

        Args:
            index: Of the stage, from 0.
            in_channels: Of its input.
        """
        choices = self.stages[index]
        seen: set[tuple[Value, ...]] = set()
        for values in product(*(getattr(choices, field) for field in FIELDS)):
            row = dict(zip(FIELDS, values, strict=True))
            inert = self._inert(index, row, in_channels)
            key = tuple(getattr(choices, field)[0] if field in inert else row[field] for field in FIELDS)
            if key not in seen:
                seen.add(key)
                yield row

    def stage(self, index: int, row: Row, in_channels: int) -> StageSpec | None:
        """Return a stage with the values of ``row``; None: it is left out."""
        return self._stage(index, row, in_channels) if row["repeats"] else None

    def _rows(self, point: Point) -> Iterator[Row]:
        if not self.is_feasible(point):
            raise ValueError(f"{point} is no point of the space {self.name}")
        indices = iter(point)
        for choices in self.stages:
            row = {}
            for field in FIELDS:
                values = getattr(choices, field)
                row[field] = values[next(indices)] if len(values) > 1 else values[0]
            yield row

    def _inert(self, index: int, row: Row, in_channels: int) -> tuple[str, ...]:
        """Return the fields whose value makes no difference to the network."""
        if row["repeats"] == 0:
            return tuple(field for field in FIELDS if field != "repeats")
        inert = WITHOUT.get(row["operation"], ())
        keeps_shape = self.backbone.stages[index].stride == 1 and in_channels == row["channels"]
        has_shortcut = keeps_shape or row["operation"] == "bottleneck"
        return inert if has_shortcut or row["repeats"] > 1 else (*inert, "residual")

    def _stage(self, index: int, row: Row, in_channels: int) -> StageSpec:
        neutral = {"expand_ratio": 1, "se_ratio": 0.0, "residual": True}
        inert = self._inert(index, row, in_channels)
        values: Row = {field: neutral[field] if field in inert else row[field] for field in FIELDS}
        return StageSpec(stride=self.backbone.stages[index].stride, **values)

    def _stage_indices(
        self, index: int, spec: NetworkSpec, stage: StageSpec, in_channels: int
    ) -> Iterator[int]:
        choices, stride = self.stages[index], self.backbone.stages[index].stride
        if stage.stride != stride:
            raise self._outside(
                spec, f"stage {index + 1} has a stride of {stage.stride}, the backbone {stride}"
            )
        row = {field: getattr(stage, field) for field in FIELDS}
        inert = self._inert(index, row, in_channels)
        if "se_ratio" in inert and stage.se_ratio:
            raise self._outside(spec, f"stage {index + 1} has squeeze-and-excitation and is no mbconv")
        for field in FIELDS:
            value, allowed = row[field], getattr(choices, field)
            if field not in inert and value not in allowed:
                wanted = ", ".join(map(str, allowed))
                raise self._outside(spec, f"{field} of stage {index + 1} is {value}, and may be {wanted}")
            if len(allowed) > 1:
                yield 0 if field in inert else allowed.index(value)

    def _outside(self, spec: NetworkSpec, reason: str) -> UserError:
        return UserError(f"{spec.name} is not in the space {self.name}: {reason}")


def _free(choices: StageChoices) -> tuple[str, ...]:
    return tuple(field for field in FIELDS if len(getattr(choices, field)) > 1)


def spec_hash(spec: NetworkSpec) -> str:
    """Return 64 hexadecimal digits of all that a network is but its name."""
    data = to_dict(spec)
    del data["name"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def spec_text(spec: NetworkSpec) -> str:
    """Return the stages of a network for people, such as ``mbconv_r2_k3_s1_e6_i16_o24_se0.25``.

    The letters are those of the released block strings: repeats, kernel, stride, expansion, input and output
    channels, squeeze-and-excitation.
    """
    inputs = (spec.stem_channels, *(stage.channels for stage in spec.stages))
    return " ".join(map(_stage_text, spec.stages, inputs))


def _stage_text(stage: StageSpec, in_channels: int) -> str:
    parts: Sequence[str] = (
        stage.operation,
        f"r{stage.repeats}_k{stage.kernel_size}_s{stage.stride}_e{stage.expand_ratio}",
        f"i{in_channels}_o{stage.channels}",
        *([f"se{stage.se_ratio:g}"] if stage.se_ratio else []),
        *([] if stage.residual else ["noskip"]),
    )
    return "_".join(parts)

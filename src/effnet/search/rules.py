"""Spaces in files: rules that any backbone can be searched by, or the choices of every stage themselves."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from importlib.resources import files
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict, load_spec
from effnet.arch.scaling import round_channels, scale
from effnet.arch.spec import SPEC_CONFIG, Count, NetworkSpec, Operation, StageSpec
from effnet.errors import UserError, did_you_mean
from effnet.search.points import Value
from effnet.search.space import WITHOUT, SearchSpace, StageChoices

Factor = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StageRule:
    """What stages of a backbone may be instead; their own values are always among the choices.

    Raises:
        pydantic.ValidationError: A value is outside its range, or repeats or channels are given in two ways.
    """

    stages: tuple[Count, ...] = ()
    """Which stages, counted from 1; empty: all."""
    operation: tuple[Operation, ...] | None = None
    """None, here and below: the backbone's own."""
    kernel_size: tuple[Count, ...] | None = None
    expand_ratio: tuple[Count, ...] | None = None
    repeats: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Numbers of blocks."""
    more_repeats: tuple[int, ...] | None = None
    """Blocks added to the backbone's, such as -1; at least one is left."""
    depth: tuple[Factor, ...] | None = None
    """Multiples of the backbone's blocks, rounded up."""
    channels: tuple[Count, ...] | None = None
    """Numbers of output channels."""
    width: tuple[Factor, ...] | None = None
    """Multiples of the backbone's channels, rounded to a multiple of 8 as in V1."""
    se_ratio: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = None
    residual: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        for ways in (("repeats", "more_repeats", "depth"), ("channels", "width")):
            given = [way for way in ways if getattr(self, way) is not None]
            if len(given) > 1:
                raise ValueError(f"{given[0]} and {given[1]} say the same thing twice; give one of them")


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class SpaceRules:
    """A space for whatever backbone it is used with.

    Raises:
        pydantic.ValidationError: A value is outside its range.
    """

    name: Annotated[str, Field(min_length=1)]
    backbone: str
    """Name of a network, suffixes included, or path of a spec; used unless the user gives another one."""
    width: Factor = 1.0
    """Compound scaling of that backbone: multiplies channels."""
    depth: Factor = 1.0
    """Compound scaling of that backbone: multiplies repeats."""
    drop_last: bool = False
    """Whether the last stage may be left out, where its stride is 1 (2104.00298 section 3.3)."""
    rules: tuple[StageRule, ...] = ()
    """Of two that say something else about a stage, the later one counts."""


def space_names() -> list[str]:
    """Return the names of the shipped spaces, sorted."""
    found = (entry.name for entry in files("effnet.search").joinpath("spaces").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def space_text(name: str, *, others: Sequence[str] = ()) -> str:
    """Return a shipped space as it is written, with its comments.

    Args:
        name: One of `space_names`.
        others: What the caller knows besides, to be named to whoever misspells it.

    Raises:
        UserError: No space has that name; the message names the nearest one.
    """
    if name not in space_names():
        raise UserError(
            f"unknown space '{name}'{did_you_mean(name, [*space_names(), *others])} "
            "(or give the path of a .toml or .json file)"
        )
    return files("effnet.search").joinpath("spaces", f"{name}.toml").read_text(encoding="utf-8")


def load_space(
    name_or_path: str, backbone: NetworkSpec | None = None, *, others: Sequence[str] = ()
) -> SearchSpace:
    """Read a space.

    Args:
        name_or_path: A name of `space_names`, or a path that ends in ``.toml`` or ``.json``, to the fields of
            `SpaceRules` or of `SearchSpace`.
        backbone: Used instead of the file's; its name is then part of the space's.
        others: As for `space_text`.

    Raises:
        UserError: There is no such space, the file is not valid, or it has the choices of every stage and
            ``backbone`` is given as well.
    """
    data = _read(name_or_path, others)
    if "stages" in data:
        if backbone:
            raise UserError(
                f"{name_or_path} has the choices of every stage of its own backbone; "
                "give a space of rules, such as v2, to search another one"
            )
        return from_dict(SearchSpace, data, name_or_path)
    rules = from_dict(SpaceRules, data, name_or_path)
    own = scale(load_spec(rules.backbone), width=rules.width, depth=rules.depth)
    return apply_rules(rules, backbone or own)


def apply_rules(rules: SpaceRules, backbone: NetworkSpec) -> SearchSpace:
    """Return the space that rules give for a backbone.

    Raises:
        UserError: A rule is for a stage that the backbone does not have, or expands bottlenecks.
    """
    number = len(backbone.stages)
    for rule in rules.rules:
        if rule.stages and max(rule.stages) > number:
            raise UserError(
                f"space {rules.name}: a rule is for stage {max(rule.stages)} and {backbone.name} has {number}"
            )
    merged = [
        _merged(rule for rule in rules.rules if not rule.stages or index in rule.stages)
        for index in range(1, number + 1)
    ]
    for index, (stage, rule) in enumerate(zip(backbone.stages, merged, strict=True), start=1):
        if stage.operation == "bottleneck" and rule.expand_ratio:
            raise UserError(
                f"space {rules.name} expands stages as MBConv does, and stage {index} of {backbone.name} has "
                "bottlenecks; give another backbone, or a space without expand_ratio"
            )
    stages = [_choices(stage, rule) for stage, rule in zip(backbone.stages, merged, strict=True)]
    if rules.drop_last and number > 1 and backbone.stages[-1].stride == 1:
        stages[-1] = replace(stages[-1], repeats=_united([0], stages[-1].repeats))
    return SearchSpace(name=rules.name, backbone=backbone, stages=tuple(stages))


def _merged(rules: Iterable[StageRule]) -> StageRule:
    values: dict[str, Any] = {}
    for rule in rules:
        given = {field.name: getattr(rule, field.name) for field in fields(rule)}
        given = {name: value for name, value in given.items() if value is not None and name != "stages"}
        for ways in (("repeats", "more_repeats", "depth"), ("channels", "width")):
            if any(way in given for way in ways):
                values = {name: value for name, value in values.items() if name not in ways}
        values |= given
    return StageRule(**values)


def _choices(stage: StageSpec, rule: StageRule) -> StageChoices:
    without = WITHOUT.get(stage.operation, ())
    repeats = [
        *(rule.repeats or ()),
        *(max(1, stage.repeats + more) for more in rule.more_repeats or ()),
        *(math.ceil(factor * stage.repeats) for factor in rule.depth or ()),
    ]
    channels = [
        *(rule.channels or ()),
        *(round_channels(stage.channels, factor, guard=True) for factor in rule.width or ()),
    ]
    return StageChoices(
        operation=_united(rule.operation, [stage.operation], order=_in_order),
        kernel_size=_united(rule.kernel_size, [stage.kernel_size]),
        expand_ratio=_united(rule.expand_ratio, () if "expand_ratio" in without else [stage.expand_ratio])
        or (1,),
        repeats=_united(repeats, [stage.repeats]),
        channels=_united(channels, [stage.channels]),
        se_ratio=_united(rule.se_ratio, () if "se_ratio" in without else [stage.se_ratio]) or (0.0,),
        residual=_united(rule.residual, [stage.residual]),
    )


def _in_order(values: Iterable[Any]) -> list[Any]:
    return list(values)


def _united(
    choices: Iterable[Any] | None,
    own: Iterable[Value],
    *,
    order: Callable[[Iterable[Any]], list[Any]] = sorted,
) -> tuple[Any, ...]:
    return tuple(order(dict.fromkeys([*(choices or ()), *own])))


def _read(name_or_path: str, others: Sequence[str]) -> dict[str, Any]:
    suffix = Path(name_or_path).suffix
    try:
        if suffix in {".toml", ".json"}:
            text = Path(name_or_path).expanduser().read_text(encoding="utf-8")
        else:
            text = space_text(name_or_path, others=others)
        data = loads(text) if suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the space {name_or_path}: {error}") from None
    except (tomllib.TOMLDecodeError, JSONDecodeError) as error:
        raise UserError(f"the space {name_or_path} cannot be parsed: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{name_or_path} must be a table of keys and values, got a {type(data).__name__}")
    return data

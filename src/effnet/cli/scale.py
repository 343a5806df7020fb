"""The ``scale`` command: a larger or smaller network, as a file that every other command takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from effnet.arch import NetworkSpec, load_spec, network_cost, spec_to_json, to_dict
from effnet.arch.compound import DOUBLING, Coefficients, Compound, published_coefficients, scale_by
from effnet.arch.non_uniform import (
    V2_SIZES,
    NonUniformRule,
    has_exceptions,
    scale_non_uniform,
    scale_to_v2_size,
)
from effnet.cli.output import print_json, print_table
from effnet.cli.scale_grid import run_scale_grid
from effnet.cli.scale_to import parse_target, solve_target
from effnet.cli.training import JsonOption, SetOption
from effnet.errors import UserError, did_you_mean
from effnet.files import whole_file


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scaled:
    """A network that was asked for, and what there is to say about it."""

    spec: NetworkSpec
    coefficients: Coefficients
    remarks: tuple[str, ...] = ()
    path: Path = Path()


def scale(
    model: Annotated[
        str, typer.Argument(help="Name of a network, see `effnet models`, or a file of a spec.")
    ],
    phi: Annotated[
        float | None,
        typer.Option(
            help="Compound scaling: 1 to 8 are the published coefficients of V1's B1 to B8; with --alpha, "
            "--beta or --gamma, the powers of these."
        ),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Depth of one step of phi. Paper: 1.2.")] = None,
    beta: Annotated[float | None, typer.Option(help="Width of one step of phi. Paper: 1.1.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Resolution of one step of phi. Paper: 1.15.")] = None,
    width: Annotated[float | None, typer.Option(help="Multiply channels by this.")] = None,
    depth: Annotated[float | None, typer.Option(help="Multiply the blocks of each stage by this.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Multiply image sizes by this.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="COST=BUDGET",
            help="The largest network within macs=1.5G, params=10M, step_ms=300 (of a training step) or "
            "latency_ms=20 (of one image), both measured here.",
        ),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(help="With --to: scale width, depth or resolution alone. Default: all, by the formula."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="With --grid or --to step_ms: how it is trained; see `effnet train`."),
    ] = None,
    changes: SetOption = None,
    non_uniform: Annotated[
        bool,
        typer.Option(
            "--non-uniform",
            help="V2's rule: sizes are capped, later stages get the extra blocks. Alone: V2-S, M and L.",
        ),
    ] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(help="With --non-uniform: s, m, l or xl of V2's coefficients; repeatable."),
    ] = None,
    cap: Annotated[
        int, typer.Option(help="With --non-uniform: largest image size in pixels.", min=1)
    ] = NonUniformRule().max_image_size,
    exceptions: Annotated[
        bool,
        typer.Option(help="With --non-uniform: follow V2's published tables where they leave their rule."),
    ] = True,
    guard: Annotated[
        bool | None,
        typer.Option(help="V1's rule that rounding takes no more than 10 %. Default: not for V2."),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Train networks of twice the cost on this, to find --alpha, --beta and --gamma, as V1 "
            "did. Interrupted, the same command continues it.",
        ),
    ] = None,
    candidates: Annotated[int, typer.Option(help="With --grid: how many networks to try.", min=1)] = 12,
    seeds: Annotated[int, typer.Option(help="With --grid: runs of each network.", min=1)] = 1,
    jobs: Annotated[int, typer.Option(help="With --grid: runs at a time.", min=1)] = 1,
    factor: Annotated[float, typer.Option(help="With --grid: multiply-adds by the base's.")] = 2.0,
    tolerance: Annotated[float, typer.Option(help="With --grid: how far from that, as a share of it.")] = 0.1,
    out: Annotated[
        Path | None,
        typer.Option(help="File of the spec, or folder of several or a grid. Default: NAME.json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Scale a network, and write what comes of it as a spec that `effnet train --model` takes."""
    spec = load_spec(model)
    way = _Way(
        constants=_given(alpha=alpha, beta=beta, gamma=gamma),
        rule=NonUniformRule(max_image_size=cap) if non_uniform else None,
        guard=guard,
    )
    factors = _given(width=width, depth=depth, resolution=resolution)
    asked = [phi is not None, bool(factors), to is not None, bool(size), grid is not None]
    _check_one_way(asked, is_non_uniform=non_uniform, has_sizes=bool(size))
    _check_options(way, has_phi=phi is not None or to is not None, axis=axis, to=to)
    if grid is not None:
        run_scale_grid(
            model,
            grid,
            out=out or Path("runs") / f"scale-{spec.name.replace('/', '-')}",
            recipe=recipe,
            changes=changes or (),
            candidates=candidates,
            seeds=seeds,
            jobs=jobs,
            factor=factor,
            tolerance=tolerance,
            guard=guard,
            as_json=as_json,
        )
        return
    if phi is not None:
        found = [_of_phi(spec, phi, way)]
    elif to is not None:
        found = [_of_target(spec, to, way, axis=axis, recipe=recipe or "scratch", changes=changes or ())]
    elif factors:
        found = [way.scaled(spec, Coefficients(**factors))]
    else:
        rule = way.rule or NonUniformRule()
        found = [_of_size(spec, item, rule, exceptions=exceptions) for item in size or ("s", "m", "l")]
    found = _written(found, out)
    if as_json:
        print_json({"base": _row(spec), "networks": [_row(item.spec) | _about(item) for item in found]})
    else:
        _print(spec, found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """How coefficients are made and applied."""

    constants: dict[str, float]
    """Of the formula, those that were given."""
    rule: NonUniformRule | None
    guard: bool | None

    def scaled(self, spec: NetworkSpec, coefficients: Coefficients, name: str | None = None) -> _Scaled:
        """Scale a network, uniformly unless there is a rule."""
        if self.rule:
            scaled = scale_non_uniform(spec, coefficients, rule=self.rule, name=name)
        else:
            scaled = scale_by(spec, coefficients, guard=self.guard, name=name)
        return _Scaled(spec=scaled, coefficients=coefficients)

    def name(self, spec: NetworkSpec, suffix: str) -> str:
        """Return a name for what comes of a network."""
        return f"{spec.name}{'-non-uniform' if self.rule else ''}-{suffix}"


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _check_one_way(asked: Sequence[bool], *, is_non_uniform: bool, has_sizes: bool) -> None:
    if sum(asked) > 1 or not (any(asked) or is_non_uniform):
        raise UserError(
            "say how to scale in one way: --phi N, --to COST=BUDGET, --width, --depth and --resolution, "
            "--grid DATA, or --non-uniform, alone or with --size"
        )
    if has_sizes and not is_non_uniform:
        raise UserError("--size names a size of V2, which has a rule of its own; give --non-uniform as well")


def _check_options(way: _Way, *, has_phi: bool, axis: str | None, to: str | None) -> None:
    if way.constants and not has_phi:
        raise UserError("--alpha, --beta and --gamma belong to a phi; give --phi N or --to COST=BUDGET")
    if axis is None:
        return
    if to is None:
        raise UserError(f"--axis says what --to scales; give --to, or --{axis} with a factor")
    if axis not in DOUBLING:
        raise UserError(f"there is no axis '{axis}'{did_you_mean(axis, DOUBLING)}")
    if way.constants:
        raise UserError("--alpha, --beta and --gamma scale all axes, --axis one; give one of them")


def _of_phi(spec: NetworkSpec, phi: float, way: _Way) -> _Scaled:
    formula, name = Compound(**way.constants).at(phi), way.name(spec, f"phi{phi:g}")
    if way.constants:
        return way.scaled(spec, formula, name)
    remark = (
        f"published coefficients of V1's B{phi:g}; the formula, --alpha 1.2 --beta 1.1 --gamma 1.15, has "
        f"width {formula.width:.3g}, depth {formula.depth:.3g} and resolution {formula.resolution:.3g}"
    )
    return replace(way.scaled(spec, published_coefficients(phi), name), remarks=(remark,))


def _of_target(
    spec: NetworkSpec, to: str, way: _Way, *, axis: str | None, recipe: str, changes: Sequence[str]
) -> _Scaled:
    target = parse_target(to)
    compound = DOUBLING[axis] if axis else Compound(**way.constants)
    name = way.name(spec, f"{f'{axis}-' if axis else ''}{target.kind}{target.text}")

    def make(phi: float) -> NetworkSpec:
        return way.scaled(spec, compound.at(phi), name).spec

    solution = solve_target(
        target, make, spec, recipe=recipe, changes=changes, tell=lambda text: typer.echo(text, err=True)
    )
    best, above = solution.best, solution.above
    remark = (
        f"phi {best.phi:.4g} costs {target.kind} {best.cost:.4g}, the next that was tried {above.cost:.4g}; "
        f"{len(solution.attempts)} networks were compared"
    )
    return replace(way.scaled(spec, compound.at(best.phi), name), remarks=(remark,))


def _of_size(spec: NetworkSpec, size: str, rule: NonUniformRule, *, exceptions: bool) -> _Scaled:
    scaled = scale_to_v2_size(spec, size, rule=rule, exceptions=exceptions)
    remarks = []
    if has_exceptions(spec, size, rule):
        verb = "as published and not by the rule" if exceptions else "left out, as published"
        remarks = [f"V2-{size.upper()}, {verb}: {', '.join(V2_SIZES[size].exceptions)}"]
    return _Scaled(spec=scaled, coefficients=V2_SIZES[size].coefficients, remarks=tuple(remarks))


def _written(found: Sequence[_Scaled], out: Path | None) -> list[_Scaled]:
    """Write all specs, or none where a file of another network is in the way."""
    if out is None or len(found) > 1:
        folder = out or Path()
        found = [replace(item, path=folder / f"{item.spec.name.replace('/', '-')}.json") for item in found]
    else:
        found = [replace(found[0], path=out)]
    for item in found:
        if item.path.suffix != ".json":
            raise UserError(f"a spec is a .json file, so that --model takes it; give --out {item.path}.json")
        if item.path.exists() and item.path.read_bytes() != spec_to_json(item.spec).encode():
            raise UserError(f"{item.path} is there already and holds something else; give another --out")
    for item in found:
        item.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(item.path) as temporary:
            temporary.write_text(spec_to_json(item.spec), encoding="utf-8")
    return list(found)


def _row(spec: NetworkSpec) -> dict[str, str | int]:
    cost = network_cost(spec)
    return {
        "name": spec.name,
        "params": cost.params,
        "macs": cost.macs,
        "image_size": spec.image_size,
        "train_size": spec.train_size,
        "blocks": spec.num_blocks,
    }


def _about(item: _Scaled) -> dict[str, object]:
    return {
        "coefficients": {axis: getattr(item.coefficients, axis) for axis in ("width", "depth", "resolution")},
        "remarks": list(item.remarks),
        "file": str(item.path),
        "spec": to_dict(item.spec),
    }


def _print(base: NetworkSpec, found: Sequence[_Scaled]) -> None:
    base_cost = network_cost(base)
    columns = (
        "network",
        "width",
        "depth",
        "resolution",
        "parameters",
        "MACs",
        "evaluated",
        "trained",
        "blocks",
    )
    rows = []
    for spec, factors in [(base, Coefficients()), *((item.spec, item.coefficients) for item in found)]:
        cost = network_cost(spec)
        rows.append(
            (
                spec.name,
                *(f"{getattr(factors, axis):.4g}" for axis in ("width", "depth", "resolution")),
                f"{cost.params / 1e6:.2f} M ({cost.params / base_cost.params:.2f} x)",
                f"{cost.macs / 1e9:.3f} G ({cost.macs / base_cost.macs:.2f} x)",
                f"{spec.image_size} px",
                f"{spec.train_size} px",
                str(spec.num_blocks),
            )
        )
    print_table(columns, rows)
    for remark in (remark for item in found for remark in item.remarks):
        typer.echo(remark)
    typer.echo(f"wrote {', '.join(str(item.path) for item in found)}; use it with --model {found[0].path}")

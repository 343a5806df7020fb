"""Commands that look at networks and recipes; they need neither data nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.arch import NetworkSpec, load_spec, names, network_cost, spec_to_json
from effnet.cli.output import print_json, print_table
from effnet.errors import UserError


def models(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of networks or files of specs. None: the whole family.", metavar="[MODEL]..."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Count at this image size in pixels instead of each network's own.", min=1),
    ] = None,
    spec: Annotated[bool, typer.Option("--spec", help="Print one network as JSON, to edit and use.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List networks with their parameters and multiply-adds, or print one as an editable spec."""
    specs = [load_spec(name) for name in networks or names()]
    if spec:
        if len(specs) != 1:
            raise UserError(f"--spec prints one network, {len(specs)} were asked for; name one")
        typer.echo(spec_to_json(specs[0]))
    elif as_json:
        print_json([_row(item, size) for item in specs])
    else:
        _print_family(specs, size)
        if len(specs) == 1:
            _print_stages(specs[0])


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe as it is written.")] = None,
    copy: Annotated[
        Path | None, typer.Option(help="Write the recipe to this file, to edit and give to --recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recipes, show one, or copy one to a file of your own."""
    from effnet.recipes import recipe_names, recipe_summary, recipe_text
    from effnet.recipes.groups import grouped

    if name is None and copy is not None:
        raise UserError("--copy writes one recipe; name it")
    if name is None:
        groups = grouped(recipe_names())
        if as_json:
            print_json(
                [
                    {"name": item, "summary": recipe_summary(item), "group": group}
                    for group, items in groups.items()
                    for item in items
                ]
            )
        else:
            width = max(map(len, recipe_names()))
            for group, items in groups.items():
                typer.echo(f"{group}:")
                for item in items:
                    typer.echo(f"  {item:<{width}}  {recipe_summary(item)}")
        return
    text = recipe_text(name)
    if copy is None:
        if as_json:
            print_json({"name": name, "text": text})
        else:
            typer.echo(text, nl=False)
        return
    if copy.suffix != ".toml":
        raise UserError(f"a recipe is a .toml file, so that --recipe takes it; give {copy}.toml to --copy")
    if copy.exists():
        raise UserError(f"{copy} is there already; give another name to --copy")
    copy.write_text(text)
    typer.echo(f"wrote {copy}; use it with --recipe {copy}")


def _row(spec: NetworkSpec, size: int | None) -> dict[str, str | int]:
    cost = network_cost(spec, size)
    return {
        "name": spec.name,
        "params": cost.params,
        "params_with_bn_stats": cost.params_with_bn_stats,
        "image_size": cost.image_size,
        "macs": cost.macs,
        "activations": cost.activations,
        "train_size": spec.train_size,
        "blocks": spec.num_blocks,
    }


def _macs(macs: int) -> str:
    return f"{macs / 1e9:.2f} G" if macs >= 1e8 else f"{macs / 1e6:.1f} M"


def _print_family(specs: list[NetworkSpec], size: int | None) -> None:
    rows = []
    for spec in specs:
        cost = network_cost(spec, size)
        rows.append(
            (
                spec.name,
                f"{cost.params / 1e6:.2f} M",
                f"{cost.image_size} px",
                _macs(cost.macs),
                f"{cost.activations / 1e6:.1f} M",
                f"{spec.train_size} px",
                str(spec.num_blocks),
            )
        )
    print_table(("network", "parameters", "size", "MACs", "activations", "trained at", "blocks"), rows)


def _print_stages(spec: NetworkSpec) -> None:
    rows = [
        (
            f"{number} {stage.operation}" + ("" if stage.residual else ", no skip"),
            f"{stage.kernel_size} x {stage.kernel_size}",
            str(stage.stride),
            str(stage.expand_ratio),
            str(stage.channels),
            str(stage.repeats),
            f"{stage.se_ratio:g}",
        )
        for number, stage in enumerate(spec.stages, start=1)
    ]
    typer.echo("")
    print_table(("stage", "kernel", "stride", "expand", "channels", "repeats", "SE"), rows)
    head = f"head {spec.head_channels} channels" if spec.head_channels else "no head"
    typer.echo(f"\nstem {_stem(spec)}, {head}; {spec.activation}, {spec.padding} padding")


def _stem(spec: NetworkSpec) -> str:
    side = spec.stem_kernel_size
    kernel = "" if side == 3 else f" of {side} x {side}"
    return f"{spec.stem_channels}{kernel}{', pooled' if spec.stem_pooling else ''}"

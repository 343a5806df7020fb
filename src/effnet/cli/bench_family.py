"""``effnet bench family``: accuracy against cost, of published networks and one's own runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import DeviceOption, JsonOption
from effnet.cli.output import print_json, print_table
from effnet.errors import UserError
from effnet.files import whole_file, write_json


def family(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="[RUN...]", help="Your own runs.")] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for family.png, .svg, .json and .md; made if need be.")
    ] = Path("family"),
    measure: Annotated[
        str,
        typer.Option(
            metavar="NAMES|small|all",
            help="Also measure the latency of published networks here, as v2-b0,v2-s; `small`: up to V2-S.",
        ),
    ] = "",
    images: Annotated[int, typer.Option(min=1, help="At a time, where latency is measured.")] = 1,
    rounds: Annotated[
        int, typer.Option(min=0, help="Forward passes of each network; 0: measure no latency.")
    ] = 7,
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not say what is done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw accuracy against parameters, multiply-adds, latency and training time (V2's figures 1 and 5).

    Published points and your own runs; what is of other images or of another machine has its own panel.
    """
    from effnet.reporting.family import collect_family
    from effnet.reporting.family_plot import plot_family
    from effnet.reporting.family_table import RUN_COLUMNS, markdown, run_rows
    from effnet.reporting.published import SMALL, measurable

    groups = {"small": SMALL, "all": measurable(), "": ()}
    names = groups[measure] if measure in groups else tuple(dict.fromkeys(measure.split(",")))
    if out.exists() and not out.is_dir():
        raise UserError(f"--out '{out}' is a file; give a folder")
    found = collect_family(
        runs or [],
        measure=names,
        images=images,
        rounds=rounds,
        device=device,
        announce=None if quiet else lambda text: typer.echo(text, err=True),
    )
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("png", "svg"):
        plot_family(found, out / f"family.{kind}")
    write_json(out / "family.json", found.to_dict())
    with whole_file(out / "family.md") as temporary:
        temporary.write_text(markdown(found), encoding="utf-8")
    if as_json:
        print_json(found.to_dict())
        return
    if found.runs:
        print_table(RUN_COLUMNS, run_rows(found))
    for name, latency in found.latencies.items():
        typer.echo(
            f"{name}, {latency.image_size} px: {latency.median_ms:.1f} ms "
            f"({latency.low_ms:.1f} to {latency.high_ms:.1f})"
        )
    typer.echo(f"pictures and numbers: {out}/family.png, .svg, .json, .md")

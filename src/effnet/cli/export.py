"""The command that writes a trained network for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from effnet.arch import released_preprocessing
from effnet.cli.options import ModelOption, SourceArgument


def export(
    source: SourceArgument,
    to: Annotated[
        Literal["timm", "torchvision"],
        typer.Option(help="timm: a folder for create_model; torchvision: a file."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write.")],
    model: ModelOption = None,
) -> None:
    """Write a trained network under the names of another library."""
    from effnet.api import load_trained
    from effnet.weights import export_timm, export_torchvision

    weights = load_trained(source, model=model)
    if to == "timm":
        export_timm(
            out,
            weights.state,
            weights.spec,
            class_names=weights.class_names,
            preprocessing=weights.preprocessing or released_preprocessing(weights.spec),
        )
        typer.echo(f"wrote {out}; load it with timm.create_model('local-dir:{out}', pretrained=True)")
    else:
        line = export_torchvision(out, weights.state, weights.spec)
        typer.echo(f"wrote {out}, a state dict for {line}")

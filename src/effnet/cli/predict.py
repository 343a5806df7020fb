"""The command that names the classes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import ClassNamesOption, DeviceOption, JsonOption, ModelOption, SourceArgument
from effnet.cli.output import print_json
from effnet.errors import UserError


def predict(
    source: SourceArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 3,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 32,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the most probable classes of images; an unreadable one is reported, the others are answered."""
    from effnet.api import load
    from effnet.data.folders import image_files

    paths = image_files(images)
    predictor = load(source, model=model, device=device, class_names=class_names)
    answers = predictor.predict(paths, top=top, batch_size=batch_size)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
    for answer in answers:
        if answer.error:
            typer.echo(f"{answer.image}: {answer.error}", err=True)
        elif not as_json:
            pairs = zip(answer.classes, answer.probabilities, strict=True)
            typer.echo(f"{answer.image}: " + ", ".join(f"{name} {share:.1%}" for name, share in pairs))
    if all(answer.error for answer in answers):
        raise UserError("none of the images could be read")

"""``effnet bench layers``: where the time of a training step or of a forward pass goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.options import DeviceOption
from effnet.cli.output import print_json, print_table
from effnet.cli.training import JsonOption, SetOption
from effnet.errors import UserError
from effnet.files import write_json

_PICTURE = ".png"
_CLASSES = 1000


def layers(
    network: Annotated[str, typer.Argument(metavar="MODEL", help="A network of the family, or a spec.")],
    size: Annotated[int, typer.Option(min=8, max=2048, help="Image size in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    is_training: Annotated[
        bool,
        typer.Option("--train/--infer", help="A training step, or answers with batch norm folded."),
    ] = True,
    rounds: Annotated[int, typer.Option(min=1, help="Calls of each pass; the median counts.")] = 7,
    device: DeviceOption = "auto",
    recipe: Annotated[str, typer.Option(help="Whose optimizer, average and loss count.")] = "scratch",
    changes: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Write all figures to this file, as JSON, and a picture beside it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not say what is done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time every kind of layer beside what it must compute and move, and what this device allows.

    Each distinct layer is run by itself, forward, and backward for inputs and for weights apart. What must
    move is each input once and each output once; the roofs are a copy and a matrix product, measured as well.
    """
    from effnet.api import configure
    from effnet.profiling.plot import plot_profile
    from effnet.profiling.profile import measure_profile
    from effnet.profiling.table import COLUMNS, summary, table_rows
    from effnet.training.journal import environment
    from effnet.training.unread import prepare_unread

    if out and not out.parent.is_dir():
        raise UserError(f"the folder of --out '{out}' does not exist")
    if out and out.suffix == _PICTURE:
        raise UserError(
            f"--out '{out}' is the name of the picture; give a file for the figures, as layers.json"
        )
    if is_training and batch == 1:
        raise UserError("--batch is 1, of which batch norm has no statistics where images are small; give 2")
    stage = ("progressive.stages=1", f"progressive.image_size=[{size},{size}]", f"train.batch_size={batch}")
    data = ("data.train_images=100000", f"data.classes={_CLASSES}", f"train.device={device}")
    experiment = prepare_unread(
        configure(recipe=recipe, model=network, changes=(*stage, *data, *(changes or ())))
    )
    profile = measure_profile(
        experiment,
        is_training=is_training,
        rounds=rounds,
        report=None if quiet else lambda what: typer.echo(f"measuring {what}", err=True),
    )
    values = {"environment": environment()} | profile.to_dict()
    if out:
        write_json(out, values)
        plot_profile(profile, out.with_suffix(_PICTURE))
    if as_json:
        print_json(values)
        return
    print_table(COLUMNS, table_rows(profile))
    typer.echo(summary(profile))

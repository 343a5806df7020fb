"""``effnet data``: prepare images for fast reading, and look at them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from effnet.cli.output import duration, megabytes, print_json, print_table
from effnet.cli.training import FailedCommandError, JsonOption, ModelOption, RecipeOption, SetOption
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.data.copying import Prediction
    from effnet.data.prepare import PreparedStore
    from effnet.data.store import Encoding

app = typer.Typer(no_args_is_help=True, help="Prepare images for fast reading, and check them.")

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders (or of train/ and val/), of parquet files or of tar files, `digits`, "
        "or `hf:` and a name on the Hugging Face hub.",
    ),
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Threads. 0: one for each processor.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print the result only.")]


@app.callback()
def _root() -> None:
    pass


@app.command()
def prepare(
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the store; one that was begun is continued.")
    ] = None,
    short_sides: Annotated[
        str,
        typer.Option(
            help="Short sides of the copies in pixels, as 160,240,320. `auto`: 1.25 times the image sizes of "
            "the recipe's stages, and what its evaluation needs."
        ),
    ] = "auto",
    recipe: RecipeOption = None,
    model: ModelOption = None,
    changes: SetOption = None,
    encoding: Annotated[
        Literal["auto", "jpeg", "raw"],
        typer.Option(
            help="What copies are: JPEG files, or RGB pixels, which are larger, exact, and several times as "
            "fast to read. `auto`: pixels where all take 2 GB at most, so that memory keeps them."
        ),
    ] = "auto",
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG copies; else 90.")] = None,
    chroma: Annotated[
        Literal["444", "422", "420"] | None,
        typer.Option(help="Resolution of the colours of JPEG copies; else 420."),
    ] = None,
    workers: WorkersOption = 0,
    worker_kind: Annotated[
        Literal["auto", "threads", "processes"],
        typer.Option(
            help="What the workers are. `auto`: processes, if there are four or more of them, and "
            "5,000 images or more."
        ),
    ] = "auto",
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Stop when more than this share of the images is unreadable.")
    ] = 0.05,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Predict size and time from some images; write nothing.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write copies of images in the sizes that training will read: smaller files, faster epochs.

    Training then takes the folder as its DATA. The originals are read once; a store that was interrupted is
    continued by the same command.
    """
    from effnet import api
    from effnet.data.copies import CopySettings
    from effnet.data.encoding_choice import choose_encoding
    from effnet.data.prepare import predict_store
    from effnet.data.selection import Selection

    if short_sides != "auto" and (
        recipe or model or not all(each.startswith("data.") for each in changes or ())
    ):
        raise UserError("--recipe, --model and --set choose the sizes; give them or --short-sides")
    config = api.configure(data, recipe=recipe, model=model, changes=changes or ())
    sides = api.sides_to_prepare(config) if short_sides == "auto" else _sides(short_sides)
    selection = Selection.of(config.data)
    if out is None and not dry_run:
        raise UserError("give the folder of the store with --out, or --dry-run to write nothing")
    if encoding == "raw" and (quality or chroma):
        raise UserError("--quality and --chroma are of JPEG copies; leave --encoding raw out, or them")
    if encoding == "auto":
        is_jpeg = bool(quality or chroma)
        encoding = "jpeg" if is_jpeg else choose_encoding(data, sides, out=out, selection=selection)
    settings = CopySettings(
        short_sides=sides, encoding=encoding, quality=quality or 90, chroma=chroma or "420"
    )
    if dry_run:
        prediction = predict_store(
            data, settings, workers=workers, worker_kind=worker_kind, selection=selection
        )
        _show_prediction(prediction, encoding, as_json=as_json)
        return
    assert out is not None
    with progress_bar("images", quiet=quiet) as report:
        result = api.prepare(
            data,
            out,
            settings,
            workers=workers,
            worker_kind=worker_kind,
            max_bad_fraction=max_bad_fraction,
            report=report,
            selection=selection,
        )
    _show_store(result, encoding, as_json=as_json)


@app.command()
def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a prepared store.")],
    workers: WorkersOption = 0,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a prepared store's files with their checksums, and decode every copy of every image."""
    from effnet.data.verify import verify_store

    with progress_bar("files and images", quiet=quiet) as report:
        damaged = verify_store(store, workers=workers, report=report)
    if as_json:
        print_json({"path": str(store), "damaged": [asdict(damage) for damage in damaged]})
    for damage in damaged:
        typer.echo(f"{damage.name}: {damage.reason}", err=True)
    if damaged:
        raise FailedCommandError(
            f"{store} is damaged; delete the files that are named and give the command that prepared it again"
        )
    if not as_json:
        typer.echo(f"{store} is whole")


def _sides(text: str) -> tuple[int, ...]:
    sides = text.replace(" ", "").split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,5}", side) for side in sides):
        raise UserError(f"--short-sides is '{text}'; give 'auto' or pixels, as 160,240,320")
    return tuple(sorted({int(side) for side in sides}))


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how much is done on standard error; yields what to tell it: how much, and of how much."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
    console = Console(stderr=True)
    # Where nobody looks, rich would still end the line that it has not written.
    is_hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_prediction(prediction: Prediction, encoding: Encoding, *, as_json: bool) -> None:
    if as_json:
        print_json(prediction.to_dict() | {"encoding": encoding})
        return
    _print_levels(prediction.level_bytes, prediction.images)
    typer.echo(
        f"\n{prediction.images} images would take {megabytes(prediction.bytes)} {_COPIES[encoding]} and "
        f"{duration(prediction.seconds)}"
    )


def _show_store(result: PreparedStore, encoding: Encoding, *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_dict() | {"encoding": encoding})
        return
    images = sum(result.images.values())
    _print_levels(result.level_bytes, images)
    typer.echo(f"\n{images} images take {megabytes(result.bytes)} {_COPIES[encoding]} in {result.path}")
    if result.prediction is not None:
        typer.echo(
            f"{result.made} images were read in {duration(result.seconds)}, "
            f"{result.made / result.seconds:.0f} a second; all were predicted to take "
            f"{megabytes(result.prediction.bytes)} and {duration(result.prediction.seconds)}"
        )
    if result.bad_images:
        typer.echo(f"{result.bad_images} unreadable images are left out, see {result.path}/bad-images.jsonl")


_COPIES: dict[Encoding, str] = {"jpeg": "as JPEG files", "raw": "as pixels"}


def _print_levels(level_bytes: dict[int, int], images: int) -> None:
    rows = [
        (f"{side} px", megabytes(count), f"{count / images / 1e3:.1f} KB")
        for side, count in level_bytes.items()
    ]
    print_table(("short side", "size", "an image"), rows)

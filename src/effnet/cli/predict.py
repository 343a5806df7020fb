"""The command that names the classes of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.options import (
    ClassNamesOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    SourceArgument,
)
from effnet.cli.output import print_json
from effnet.cli.training import FailedCommandError, InterruptedCommandError
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.data.listing import ImageList
    from effnet.evaluation.predictor import Prediction, Predictor


def predict(
    source: SourceArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE...]", help="Image files, or folders of them at any depth."),
    ] = None,
    from_list: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="Take the images from a list, one path a line, or from stdin."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers to this .csv, .jsonl or .parquet file; where it is stopped, the same "
            "command continues it."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 3,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="With --out: write the probability of every class.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images at a time. Default: what is fast on the device.", min=1)
    ] = None,
    workers: Annotated[int, typer.Option(help="With --out: threads. 0: one for each processor.", min=0)] = 0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the most probable classes of images; an unreadable one is reported, the others are answered."""
    from effnet.api import load, use_engine
    from effnet.data.failures import WorkerError

    if probabilities and out is None:
        raise UserError("--probabilities is for files; give one with --out, or a large --top")
    listed = _listed(images or [], from_list)
    predictor = load(source, model=model, device=device, class_names=class_names)
    try:
        if out is None:
            names = list(listed.names)
            use_engine(predictor, engine, images=len(names), tell=_say)
            answers = predictor.predictions(names, top=top, batch_size=batch_size)
            _print_answers(answers, as_json=as_json)
        else:
            shown = None if probabilities else top
            _write(predictor, source, listed, out, shown, batch_size, workers, engine, as_json=as_json)
    except WorkerError as error:
        raise FailedCommandError(str(error)) from error


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _listed(images: list[Path], from_list: str | None) -> ImageList:
    from effnet.data.listing import images_at, images_in_list

    if bool(images) == (from_list is not None):
        raise UserError("give either images and folders of them, or a list of them with --from-list")
    return images_in_list(from_list) if from_list is not None else images_at(images)


def _print_answers(answers: Iterable[Prediction], *, as_json: bool) -> None:
    """Print each answer when it comes; errors go to stderr."""
    from effnet.data.listing import readable_name

    is_any, separator = False, "[\n"
    for answer in answers:
        is_any |= answer.error is None
        name = readable_name(answer.image)
        if as_json:
            entry = json.dumps(answer.to_dict() | {"image": name}, indent=2)
            sys.stdout.write(separator + "\n".join(f"  {line}" for line in entry.splitlines()))
            separator = ",\n"
        if answer.error:
            typer.echo(f"{_on_one_line(name)}: {answer.error}", err=True)
        elif not as_json:
            pairs = zip(answer.classes, answer.probabilities, strict=True)
            classes = ", ".join(f"{found} {share:.1%}" for found, share in pairs)
            typer.echo(f"{_on_one_line(name)}: {classes}")
    if as_json:
        sys.stdout.write("\n]\n")
    if not is_any:
        raise UserError("none of the images could be read")


def _write(
    predictor: Predictor,
    source: str,
    images: ImageList,
    out: Path,
    top: int | None,
    batch_size: int | None,
    workers: int,
    engine: str,
    *,
    as_json: bool,
) -> None:
    from effnet.api.predicting import InterruptedPredictionError, predict_to_file
    from effnet.cli.prediction_progress import show_progress

    try:
        with show_progress() as report:
            written = predict_to_file(
                predictor,
                source,
                images,
                out,
                top=top,
                batch_size=batch_size,
                workers=workers,
                engine=engine,
                tell=_say,
                report=report,
            )
    except InterruptedPredictionError as error:
        raise InterruptedCommandError(str(error)) from error
    if as_json:
        print_json({"out": str(out), "images": written.images, "bad_images": written.bad})
    if written.bad == written.images:
        raise UserError(f"none of the {written.images} images could be read; {out} says why")
    if not as_json:
        unread = f", {written.bad} of them unreadable" if written.bad else ""
        typer.echo(f"{out}: {written.images} images{unread}")


def _on_one_line(name: str) -> str:
    return name.replace("\n", "\\n").replace("\r", "\\r")

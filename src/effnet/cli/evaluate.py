"""The command that measures a trained network."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from effnet.cli.data import QuietOption, progress_bar
from effnet.cli.evaluation_output import print_assessment, print_comparison, print_scores, print_sizes
from effnet.cli.options import ClassNamesOption, DeviceOption, JsonOption, ModelOption, SourceArgument
from effnet.cli.output import print_json
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.api import AnswerSettings
    from effnet.data.images import LabelledImages
    from effnet.evaluation.answers import Answers
    from effnet.evaluation.predictor import Predictor

_MOST_SIZE = 4096


def evaluate(
    source: SourceArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Labelled images. Default: the run's own validation split."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Splits of DATA to measure on, as test or validation+test.")
    ] = "",
    size: Annotated[
        int | None, typer.Option(help="Image size in pixels instead of the weights' own.", min=1)
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="Compare image sizes instead, as 160,192,224: scores at each.")
    ] = None,
    tta: Annotated[
        Literal["none", "flip", "five-crop", "ten-crop"],
        typer.Option(help="Views of each image whose probabilities are averaged (test-time augmentation)."),
    ] = "none",
    soup: Annotated[
        list[str] | None, typer.Option(help="Another RUN or WEIGHTS to average weights with. Repeatable.")
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(help="Another RUN or WEIGHTS to average probabilities with. Repeatable."),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="A RUN or WEIGHTS to compare with, image by image, by a paired test.")
    ] = None,
    subset: Annotated[
        bool,
        typer.Option("--subset", help="Leave out classes that no image has, as for a part of ImageNet."),
    ] = False,
    threshold: Annotated[
        float, typer.Option(help="Probability of a label, where images have several.")
    ] = 0.5,
    confidence: Annotated[
        float, typer.Option(help="Of the intervals: how often they shall hold the truth.")
    ] = 0.95,
    bins: Annotated[int, typer.Option(help="Of the calibration error.", min=1)] = 15,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    class_names: ClassNamesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for scores.json, answers.parquet, confusion.csv and pictures."),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a network on labelled images.

    Accuracy with its bootstrap interval, loss, precision, recall and F1 of every class, the classes that are
    confused most, and whether its confidence is right, without and with temperature (cross-fitted on these
    images). Where images may have several labels: average precision, and precision, recall and F1 at a
    threshold.

    Started by torchrun, or where logits would not fit in memory, only accuracy and loss.
    """
    from effnet import api
    from effnet.data.processes import this_process

    asked_sizes = _sizes(sizes) if sizes is not None else ()
    if asked_sizes and (size or compare):
        raise UserError("--sizes measures at several sizes; leave --size and --compare out")
    _check_shares({"--confidence": confidence, "--threshold": threshold})
    extras: dict[str, object] = {
        "--sizes": asked_sizes,
        "--compare": compare,
        "--out": out,
        "--subset": subset,
    }
    extras |= {"--tta": tta != "none", "--soup": soup, "--ensemble": ensemble}
    asked = [name for name, value in extras.items() if value]
    measure_plainly = partial(
        api.evaluate,
        source,
        data,
        split=split,
        image_size=size,
        batch_size=batch_size,
        model=model,
        device=device,
        class_names=class_names,
    )
    if this_process().count > 1:
        if asked:
            raise UserError(f"{asked[0]} needs all answers in one process; start effnet without torchrun")
        print_scores(measure_plainly(), as_json=as_json)
        return
    members = api.load_members(
        source, model=model, device=device, class_names=class_names, soup=soup or (), ensemble=ensemble or ()
    )
    images = api.open_images(source, data, split)
    if not asked and not api.fits_in_memory(api.known_images(images, members[0])):
        print_scores(measure_plainly(), as_json=as_json)
        return
    settings = api.AnswerSettings(
        image_size=size,
        batch_size=batch_size,
        views="one" if tta == "none" else tta,
        only_present=subset,
    )
    told = {"source": source, "data": data, "split": split, "soup": soup or [], "ensemble": ensemble or []}
    task = _Task(
        members=members,
        images=images,
        settings=settings,
        confidence=confidence,
        document={**told, **asdict(settings), "confidence": confidence},
        out=_folder(out),
        as_json=as_json,
        quiet=quiet or as_json,
    )
    if task.out and soup:
        api.save_soup(task.out / "soup.safetensors", [source, *soup], model=model, class_names=class_names)
    if asked_sizes:
        _sweep(task, asked_sizes)
    else:
        _assess(task, bins=bins, threshold=threshold, compare=compare, device=device)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What to measure, and where the result goes."""

    members: tuple[Predictor, ...]
    images: LabelledImages
    settings: AnswerSettings
    confidence: float
    document: dict[str, Any]
    """What was asked for."""
    out: Path | None
    as_json: bool
    quiet: bool


def _sweep(task: _Task, sizes: tuple[int, ...]) -> None:
    from effnet import api
    from effnet.evaluation.folder import write_sweep

    with progress_bar("images", quiet=task.quiet) as report:
        found = api.sweep_sizes(
            task.members, task.images, sizes, task.settings, confidence=task.confidence, report=report
        )
    document = {**task.document, "sizes": [row.to_dict() for row in found]}
    del document["image_size"]
    if task.out:
        write_sweep(task.out, document, sizes, [row.top1 for row in found])
    if task.as_json:
        print_json(document)
    else:
        print_sizes(found)


def _assess(task: _Task, *, bins: int, threshold: float, compare: str | None, device: str) -> None:
    from effnet import api
    from effnet.evaluation.assessment import assess
    from effnet.evaluation.comparison import compare as compare_answers
    from effnet.evaluation.folder import write_evaluation

    rivals: tuple[Predictor, ...] = ()
    if compare:
        if task.images.label_sets is not None:
            raise UserError("--compare needs images with one label each, and these may have several")
        rivals = api.load_members(compare, device=device)
        api.known_images(task.images, rivals[0])
    answers = _answers(task, task.members)
    assessment = assess(answers, confidence=task.confidence, bins=bins, threshold=threshold)
    document = {**task.document, **assessment.to_dict()}
    comparison = None
    if compare:
        comparison = compare_answers(answers, _answers(task, rivals), confidence=task.confidence)
        document["comparison"] = {"with": compare, **comparison.to_dict()}
    if task.out:
        write_evaluation(task.out, answers, assessment, document)
    if task.as_json:
        print_json(document)
        return
    print_assessment(assessment)
    if comparison and compare:
        print_comparison(comparison, task.document["source"], compare)


def _answers(task: _Task, members: tuple[Predictor, ...]) -> Answers:
    from effnet import api

    with progress_bar("images", quiet=task.quiet) as report:
        return api.answer_together(members, task.images, task.settings, report=report)


def _folder(out: Path | None) -> Path | None:
    from effnet.evaluation.folder import prepare_folder

    return prepare_folder(out) if out else None


def _check_shares(given: dict[str, float]) -> None:
    for option, value in given.items():
        if not 0 < value < 1:
            raise UserError(f"{option} must be above 0 and below 1, got {value:g}")


def _sizes(text: str) -> tuple[int, ...]:
    sizes = text.replace(" ", "").split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", size) and int(size) <= _MOST_SIZE for size in sizes):
        raise UserError(
            f"--sizes is '{text}'; give image sizes from 1 to {_MOST_SIZE} pixels, as 160,192,224"
        )
    return tuple(sorted({int(size) for size in sizes}))

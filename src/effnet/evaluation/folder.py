"""The files of an evaluation: a folder for people and programs.

Dimension key: N images.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.assessment import Assessment
from effnet.evaluation.confusion import confusion
from effnet.evaluation.interval import Interval
from effnet.evaluation.metrics import judge
from effnet.evaluation.pictures import draw_confusion, draw_reliability, draw_sizes, save_picture
from effnet.evaluation.predicted import predicted_classes
from effnet.files import whole_file, write_json

_MOST_ANSWERS = 5


def prepare_folder(out: Path) -> Path:
    """Return the folder of an evaluation, made where it is not there.

    Raises:
        UserError: It is a file, or the folder that it would be in is not there.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder, and '{out}' is a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out must be in a folder that exists, got '{out}'")
    out.mkdir(exist_ok=True)
    return out


def write_evaluation(out: Path, answers: Answers, assessment: Assessment, document: dict[str, Any]) -> None:
    """Write the files of an evaluation; each is whole or absent, and replaces one of its name.

    Args:
        out: A folder that exists.
        answers: Written as ``answers.parquet``, a row an image. Where images have one label there are also
            ``confusion.csv``, ``confusion.png`` and ``reliability.png``.
        assessment: Of the answers.
        document: Written as ``scores.json``.

    Raises:
        OSError: A file cannot be written.
    """
    write_json(out / "scores.json", document)
    with whole_file(out / "answers.parquet") as temporary:
        pq.write_table(answers_table(answers), temporary)
    if assessment.calibration is None:
        return
    matrix = confusion(answers)
    with (
        whole_file(out / "confusion.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["true \\ answered", *answers.class_names])
        writer.writerows([name, *row] for name, row in zip(answers.class_names, matrix.tolist(), strict=True))
    save_picture(draw_confusion(matrix, answers.class_names), out / "confusion.png")
    save_picture(draw_reliability(assessment.calibration), out / "reliability.png")


def write_sweep(out: Path, document: dict[str, Any], sizes: Sequence[int], top1: Sequence[Interval]) -> None:
    """Write ``sizes.json`` and ``sizes.png``: accuracy at several image sizes.

    Args:
        out: A folder that exists.
        document: Written as ``sizes.json``.
        sizes: In pixels.
        top1: At each size.

    Raises:
        OSError: A file cannot be written.
    """
    write_json(out / "sizes.json", document)
    save_picture(draw_sizes(sizes, top1), out / "sizes.png")


def answers_table(answers: Answers) -> pa.Table:
    """Return one row an image: name, labels, the five most probable classes with their probabilities.

    Where images have one label, also whether the answer is right, the probability of the label, and the loss.
    """
    probabilities = answers.probabilities
    most = min(_MOST_ANSWERS, probabilities.shape[1])
    places = np.argsort(-probabilities, axis=1, kind="stable")[:, :most]
    names = np.array(answers.class_names, dtype=object)
    columns: dict[str, Any] = {"image": list(answers.names)}
    if answers.labels.ndim == 1:
        logits, labels = torch.from_numpy(answers.logits), torch.from_numpy(answers.labels)
        predicted = predicted_classes(answers)
        columns |= {
            "label": names[answers.labels].tolist(),
            "answer": names[predicted].tolist(),
            "is_right": predicted == answers.labels,
            "label_probability": probabilities[np.arange(len(answers)), answers.labels],
            "loss": judge(logits, labels, answers.output)[:, 2].numpy(),
        }
    else:
        columns["labels"] = [names[row[row >= 0]].tolist() for row in answers.labels]
    columns["classes"] = names[places].tolist()
    columns["probabilities"] = np.take_along_axis(probabilities, places, axis=1).tolist()
    return pa.table(columns)

"""Answer for any number of images into a file that can be stopped and continued."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from effnet.arch.io import to_dict
from effnet.data.listing import ImageList
from effnet.engines import use_engine
from effnet.engines.kept import weights_digest
from effnet.errors import UserError
from effnet.evaluation.answer_formats import AnswerColumns, answer_format
from effnet.evaluation.answer_journal import AnswerJournal, Progress, open_journal
from effnet.evaluation.predictor import Predictor
from effnet.evaluation.streaming import AnsweredBatch
from effnet.nn import Network
from effnet.training.interrupt import Interruption, listen_for_interruption

Report = Callable[[AnsweredBatch | None, Progress, int], None]
"""Told what has just been written, how far the file has come, and how many images there are. Before the first
batch nothing has been written."""


class InterruptedPredictionError(Exception):
    """Somebody asked to stop; what was answered is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenAnswers:
    """A file of answers that is whole."""

    path: Path
    images: int
    bad: int
    """Of these, that could not be read."""


def predict_to_file(
    predictor: Predictor,
    source: str | Path,
    images: ImageList,
    out: Path,
    *,
    top: int | None = 3,
    batch_size: int | None = None,
    workers: int = 0,
    engine: str = "auto",
    tell: Callable[[str], None] = lambda line: None,
    report: Report | None = None,
) -> WrittenAnswers:
    """Write the answers for images of any number; the same call continues a file that was stopped.

    However often it is stopped, the file is the same byte for byte: rows are in the order of the images, the
    list of the images is made once, and each batch has the same images.

    Args:
        predictor: Of `effnet.api.load`.
        source: What it was loaded from.
        images: Which images.
        out: A name that ends as one of `effnet.evaluation.answer_formats.FORMATS`.
        top: How many classes to name; None: the probability of every class.
        batch_size: Images at a time; None: what is fast here.
        workers: Threads; 0: one for each processor.
        engine: As of `effnet.engines.use_engine`; a file that was begun goes on with the engine of its first
            rows.
        tell: Told what computes.
        report: Told after each batch.

    Raises:
        UserError: ``out`` cannot be written, exists, or was begun with other settings or images.
        InterruptedPredictionError: SIGINT or SIGTERM came.
        OSError: The disk is full or cannot be written.
    """
    if not out.absolute().parent.is_dir():
        raise UserError(f"the folder of --out '{out}' does not exist")
    form = answer_format(out, AnswerColumns(class_names=predictor.class_names, top=top))
    size = batch_size or predictor.batch_size
    settings = {
        "images": images.origin,
        "network": _network_identity(predictor, source),
        "classes": hashlib.sha256("\0".join(predictor.class_names).encode()).hexdigest(),
        "preprocessing": to_dict(predictor.preprocessing),
        "output": predictor.output,
        "top": top,
        "batch_size": size,
        "device": predictor.device.type,
    }
    with (
        listen_for_interruption() as asked,
        open_journal(out, form, settings, _listed(images, asked)) as journal,
    ):
        if report:
            report(None, journal.progress, journal.total)
        _choose_engine(predictor, journal, engine, workers, tell)
        answerer = predictor.answerer()
        with closing(answerer.answer(_batches(journal, size), workers=workers)) as answers:
            for answered in answers:
                journal.append(answered)
                if report:
                    report(answered, journal.progress, journal.total)
                if asked.is_requested and journal.progress.images < journal.total:
                    break
        if journal.progress.images < journal.total:
            raise InterruptedPredictionError(
                f"stopped after {journal.progress.images} of {journal.total} images; the same command "
                "continues"
            )
        journal.finish()
        return WrittenAnswers(path=out, images=journal.total, bad=journal.progress.bad)


def _choose_engine(
    predictor: Predictor, journal: AnswerJournal, wanted: str, workers: int, tell: Callable[[str], None]
) -> None:
    """Choose what computes all rows of a file: its bytes are to be the same, and engines round differently.

    Raises:
        UserError: The file was begun with another engine than the one that is named, or that one is gone.
    """
    if not isinstance(predictor.model, Network):
        use_engine(predictor, wanted)
        return
    begun = journal.engine
    if begun is None:
        journal.note_engine(use_engine(predictor, wanted, images=journal.total, threads=workers, tell=tell))
        return
    if wanted not in {"auto", begun}:
        raise UserError(
            f"the file was begun with the engine {begun}; continue it with --engine {begun}, or give another "
            "file with --out"
        )
    use_engine(predictor, begun, images=journal.total, threads=workers)
    tell(f"engine {begun}: as for the first rows")


def _listed(images: ImageList, asked: Interruption) -> Iterator[str]:
    for name in images.names:
        if asked.is_requested:
            raise InterruptedPredictionError(
                "stopped while the images were being listed; the same command begins anew"
            )
        yield name


def _batches(journal: AnswerJournal, size: int) -> Iterator[tuple[str, ...]]:
    names = journal.remaining()
    while batch := tuple(islice(names, size)):
        yield batch


def _network_identity(predictor: Predictor, source: str | Path) -> str:
    """Return what tells a network with its weights from another one, wherever they are."""
    model: Any = predictor.model
    if isinstance(model, nn.Module):
        return weights_digest(model)
    digest = hashlib.sha256()
    for file in _files_of(Path(source)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    """Return the files of an exported network: a folder, or a file with its weights beside it."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}.data"))
    return [path, *(file for file in beside if file.is_file() and file != path)]

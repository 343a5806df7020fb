"""A file of answers that is being written: it can be stopped at any moment, and continues to the same bytes.

Until it is whole it is a folder beside the file that it becomes: what was asked for, the list of the images,
the rows so far, and how many of them count. Rows that were written behind those, when the process was
killed, are cut off and written again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from effnet.errors import UserError
from effnet.evaluation.answer_formats import AnswerFormat
from effnet.evaluation.streaming import AnsweredBatch
from effnet.files import whole_file, write_json

_COMMIT_SECONDS = 1.0
"""Between two notes of how many rows count, at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a file of answers has come."""

    images: int = 0
    """That have a row."""
    bad: int = 0
    """Of these, that could not be read."""
    bytes: int = 0
    """Of header and rows."""


class AnswerJournal:
    """The answers so far; made by `open_journal`.

    Args:
        folder: Where they are.
        out: What they become.
        form: How they are written.
    """

    def __init__(self, folder: Path, out: Path, form: AnswerFormat) -> None:
        self._folder, self._out, self._form = folder, out, form
        self.total: int = json.loads(_plan_path(folder).read_text(encoding="utf-8"))["total"]
        """Images that are to be answered."""
        self.progress = _read_progress(folder)
        self.engine: str | None = _read_engine(folder, self.progress)
        """What computes the rows; None: nobody has noted it yet."""
        self._committed = time.monotonic()
        self._body: BinaryIO | None = None

    def remaining(self) -> Iterator[str]:
        """Yield the names of the images that have no row yet, in order."""
        with _images_path(self._folder).open(encoding="utf-8") as file:
            for index, line in enumerate(file):
                if index >= self.progress.images:
                    yield json.loads(line)

    def note_engine(self, name: str) -> None:
        """Note what computes the rows.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        write_json(_engine_path(self._folder), name)
        self.engine = name

    def append(self, answered: AnsweredBatch) -> None:
        """Write the rows of the images that come next.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        if self._body is None:
            self._body = _open_body(_body_path(self._folder), self.progress, self._out)
        start = b"" if self.progress.bytes else self._form.header()
        rows = start + self._form.rows(answered)
        self._body.write(rows)
        self.progress = Progress(
            images=self.progress.images + len(answered.names),
            bad=self.progress.bad + sum(error is not None for error in answered.errors),
            bytes=self.progress.bytes + len(rows),
        )
        if time.monotonic() - self._committed >= _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Note how many rows count, once they are on the disk.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        if self._body is not None:
            self._body.flush()
            os.fsync(self._body.fileno())
            write_json(_progress_path(self._folder), asdict(self.progress))
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit, and let go of the file."""
        try:
            self.commit()
        finally:
            if self._body is not None:
                self._body.close()
                self._body = None

    def finish(self) -> None:
        """Make the file; all images must have their rows.

        Raises:
            OSError: The disk is full or cannot be written; nothing is lost.
        """
        self.close()
        body = _body_path(self._folder)
        if body.exists():  # Else it was killed after the next line.
            self._form.finish(body, self._out)
        shutil.rmtree(self._folder)


@contextmanager
def open_journal(
    out: Path, form: AnswerFormat, settings: dict[str, Any], names: Iterable[str]
) -> Iterator[AnswerJournal]:
    """Begin a file of answers, or continue it where it was stopped.

    Args:
        out: The file; its folder must exist.
        form: How it is written.
        settings: All that decides about the rows, as JSON can hold it.
        names: Of the images, in order; walked only where the file is begun.

    Yields:
        The journal; what was appended is committed at the end of the ``with`` block, however it ends.

    Raises:
        UserError: The file is there already, another process is writing it, or it was begun with other
            settings.
    """
    folder = unfinished_path(out)
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            if _plan_path(folder).is_file():
                _check_settings(folder, out, settings)
            else:
                _begin(folder, out, settings, names)
            journal = AnswerJournal(folder, out, form)
            if journal.progress.images < journal.total:
                _check_free(out)
            try:
                yield journal
            finally:
                journal.close()
    except Timeout:
        raise UserError(
            f"another process is writing '{out}'; wait for it, or give another file with --out"
        ) from None


def unfinished_path(out: Path) -> Path:
    """Return the folder that holds a file of answers until it is whole."""
    return out.with_name(f".{out.name}.unfinished")


def _begin(folder: Path, out: Path, settings: dict[str, Any], names: Iterable[str]) -> None:
    """Write the list of the images, and then the plan, without which nothing else counts."""
    total = 0
    try:
        _check_free(out)
        with whole_file(_images_path(folder)) as temporary, temporary.open("w", encoding="utf-8") as file:
            for name in names:
                file.write(json.dumps(name) + "\n")
                total += 1
    except BaseException:
        shutil.rmtree(folder)
        raise
    write_json(_plan_path(folder), {"total": total, "settings": settings})


def _check_free(out: Path) -> None:
    if out.exists():
        raise UserError(f"'{out}' exists already; remove it, or give another file with --out")


def _check_settings(folder: Path, out: Path, settings: dict[str, Any]) -> None:
    begun = json.loads(_plan_path(folder).read_text(encoding="utf-8"))["settings"]
    if begun != settings:
        keys = sorted(key for key in begun.keys() | settings.keys() if begun.get(key) != settings.get(key))
        raise UserError(
            f"'{out}' was begun with other {' and '.join(keys)}, see {_plan_path(folder)}; give what it was "
            f"begun with, another file with --out, or remove {folder} to begin anew"
        )


def _open_body(path: Path, progress: Progress, out: Path) -> BinaryIO:
    """Open the rows to append to those that count."""
    path.touch()
    if path.stat().st_size < progress.bytes:
        raise UserError(f"what there is of '{out}' is damaged; remove {path.parent} to begin anew")
    os.truncate(path, progress.bytes)
    return path.open("ab")


def _read_progress(folder: Path) -> Progress:
    path = _progress_path(folder)
    return Progress(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Progress()


def _read_engine(folder: Path, progress: Progress) -> str | None:
    path = _engine_path(folder)
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    # What was begun before engines were noted was computed by PyTorch.
    return "eager" if progress.images else None


def _engine_path(folder: Path) -> Path:
    return folder / "engine.json"


def _plan_path(folder: Path) -> Path:
    return folder / "plan.json"


def _images_path(folder: Path) -> Path:
    return folder / "images.jsonl"


def _progress_path(folder: Path) -> Path:
    return folder / "progress.json"


def _body_path(folder: Path) -> Path:
    return folder / "rows"

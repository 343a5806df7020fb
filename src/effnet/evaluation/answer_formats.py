"""Answers as rows of a file: CSV, JSON lines or parquet, by the name of the file.

Each format turns batches into bytes that are appended one after another, so that a file can be continued
wherever a batch ends. Probabilities are float32, written with as many digits as it takes to read back the
same ones. Dimension key: N images, K classes.
"""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from effnet.data.listing import readable_name
from effnet.errors import UserError
from effnet.evaluation.predictor import top_classes
from effnet.evaluation.streaming import AnsweredBatch
from effnet.files import whole_file

_ROW_GROUP_CELLS = 1_048_576
"""Of a parquet file: what is in memory at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerColumns:
    """What a row says beside the image's name and why it could not be read."""

    class_names: tuple[str, ...]
    """In the order of the probabilities."""
    top: int | None
    """How many of the most probable classes are named; None: the probability of every class is told."""

    @property
    def named(self) -> int:
        """How many classes a row names."""
        return len(self.class_names) if self.top is None else min(self.top, len(self.class_names))


class AnswerFormat(ABC):
    """One kind of file."""

    def __init__(self, columns: AnswerColumns) -> None:
        self.columns = columns

    @abstractmethod
    def header(self) -> bytes:
        """Return what comes before the first row."""

    @abstractmethod
    def rows(self, answered: AnsweredBatch) -> bytes:
        """Return the rows of a batch, to be appended."""

    def finish(self, body: Path, out: Path) -> None:
        """Make the file from all that was appended.

        Args:
            body: Header and rows, in the same file system; it may be moved away.
            out: Appears whole or not at all.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        body.replace(out)

    def _best(self, answered: AnsweredBatch) -> list[list[tuple[str, np.float32]]]:
        """Return the classes that each row names, with their probabilities; none where there is no answer."""
        names, top = self.columns.class_names, self.columns.named
        return [
            [(names[index], row[index]) for index in best] if error is None else []
            for error, row, best in zip(
                answered.errors,
                answered.probabilities,
                top_classes(answered.probabilities, top),
                strict=True,
            )
        ]


class JsonLines(AnswerFormat):
    """One JSON object a line, as ``effnet predict --json`` prints it."""

    def header(self) -> bytes:
        """Return nothing."""
        return b""

    def rows(self, answered: AnsweredBatch) -> bytes:
        """Return one line an image."""
        lines = []
        for index, (name, error) in enumerate(zip(answered.names, answered.errors, strict=True)):
            entry: dict[str, Any] = {"image": readable_name(name)}
            if error is not None:
                entry["error"] = error
            elif self.columns.top is None:
                values = zip(self.columns.class_names, answered.probabilities[index], strict=True)
                entry["probabilities"] = {name: _number(value) for name, value in values}
            lines.append(entry)
        if self.columns.top is not None:
            for entry, best in zip(lines, self._best(answered), strict=True):
                if best:
                    entry["classes"] = [{"name": name, "probability": _number(value)} for name, value in best]
        return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in lines).encode()


class Csv(AnswerFormat):
    """Comma-separated values with a header, in UTF-8."""

    def header(self) -> bytes:
        """Return the names of the columns."""
        return _csv([_column_names(self.columns)])

    def rows(self, answered: AnsweredBatch) -> bytes:
        """Return one row an image; it has empty cells where there is no answer."""
        starts = [
            [readable_name(name), error or ""]
            for name, error in zip(answered.names, answered.errors, strict=True)
        ]
        if self.columns.top is None:
            cells = [
                ["" if np.isnan(value) else str(value) for value in row] for row in answered.probabilities
            ]
        else:
            empty = [""] * (2 * self.columns.named)
            cells = [
                [cell for name, value in best for cell in (name, str(value))] or empty
                for best in self._best(answered)
            ]
        return _csv([start + row for start, row in zip(starts, cells, strict=True)])


class Parquet(AnswerFormat):
    """Parquet; until it is finished, its rows are record batches of an Arrow stream."""

    def __init__(self, columns: AnswerColumns) -> None:
        super().__init__(columns)
        kinds = (
            [pa.float32()] * columns.named
            if columns.top is None
            else [pa.string(), pa.float32()] * columns.named
        )
        names = _column_names(columns)
        self._schema = pa.schema(list(zip(names, [pa.string(), pa.string(), *kinds], strict=True)))

    def header(self) -> bytes:
        """Return the schema."""
        return self._schema.serialize().to_pybytes()

    def rows(self, answered: AnsweredBatch) -> bytes:
        """Return a record batch."""
        columns: list[Sequence[Any]] = [
            [readable_name(name) for name in answered.names],
            answered.errors,
        ]
        if self.columns.top is None:
            columns += [_without_nan(column) for column in answered.probabilities.T]
        else:
            empty = [(None, None)] * self.columns.named
            padded = [best or empty for best in self._best(answered)]
            for place in range(self.columns.named):
                columns += [[best[place][part] for best in padded] for part in (0, 1)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        return pa.record_batch(arrays, schema=self._schema).serialize().to_pybytes()

    def finish(self, body: Path, out: Path) -> None:
        """Write row groups of equal size; see `AnswerFormat.finish`."""
        rows = max(_ROW_GROUP_CELLS // len(self._schema), 1)
        with (
            whole_file(out) as temporary,
            pa.OSFile(str(body)) as file,
            pq.ParquetWriter(temporary, self._schema) as writer,
        ):
            waiting: list[pa.RecordBatch] = []
            count = 0
            for batch in pa.ipc.open_stream(file):
                waiting.append(batch)
                count += len(batch)
                if count >= rows:
                    table = pa.Table.from_batches(waiting)
                    writer.write_table(table.slice(0, rows))
                    waiting, count = table.slice(rows).to_batches(), count - rows
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))


FORMATS: dict[str, type[AnswerFormat]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}


def answer_format(out: Path, columns: AnswerColumns) -> AnswerFormat:
    """Return the format that a file's name asks for.

    Raises:
        UserError: It is none of `FORMATS`, or a class is called like a column.
    """
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"--out '{out}' ends in '{suffix}'; allowed: {', '.join(FORMATS)}")
    if columns.top is None and FORMATS[suffix] is not JsonLines:
        names = _column_names(columns)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(
                f"two columns of '{out}' would be called '{twice[0]}'; write a .jsonl file, or leave out "
                "--probabilities"
            )
    return FORMATS[suffix](columns)


def _column_names(columns: AnswerColumns) -> list[str]:
    if columns.top is None:
        return ["image", "error", *columns.class_names]
    places = range(1, columns.named + 1)
    return [
        "image",
        "error",
        *(name for place in places for name in (f"class{place}", f"probability{place}")),
    ]


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _number(value: np.float32) -> float:
    """Return the number that is written with the fewest digits that mean this one."""
    return float(str(value))


def _without_nan(column: Float32[np.ndarray, " N"]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in column]

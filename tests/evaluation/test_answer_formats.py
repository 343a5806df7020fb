import csv
import io
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from effnet.errors import UserError
from effnet.evaluation import answer_formats
from effnet.evaluation.answer_formats import AnswerColumns, answer_format
from effnet.evaluation.streaming import AnsweredBatch

CLASSES = ("tulips", 'a "rose", red', "Gänse\nblümchen")
HARD_NAMES = ("plain.png", 'a, "b".png', "new\nline.png", os.fsdecode(b"\xff.png"), "=SUM(A1).png", "")


def _answered(count: int = 6, seed: int = 0) -> AnsweredBatch:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet((0.1, 0.1, 0.1), count).astype(np.float32)
    probabilities[1] = np.nan
    errors = tuple("the file is empty" if index == 1 else None for index in range(count))
    return AnsweredBatch(names=HARD_NAMES[:count], errors=errors, probabilities=probabilities)


def _written(suffix: str, top: int | None, batches: list[AnsweredBatch], tmp_path) -> bytes:
    out = tmp_path / f"answers{suffix}"
    form = answer_format(out, AnswerColumns(class_names=CLASSES, top=top))
    body = tmp_path / "body"
    body.write_bytes(form.header() + b"".join(map(form.rows, batches)))
    form.finish(body, out)
    return out.read_bytes()


def _read(suffix: str, content: bytes) -> list[dict]:
    """Return the rows as a user would read them, numbers as float32."""
    if suffix == ".parquet":
        return [
            {key: np.float32(value) if isinstance(value, float) else value for key, value in row.items()}
            for row in pq.read_table(io.BytesIO(content)).to_pylist()
        ]
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [
        {
            key: (np.float32(value) if key.startswith("prob") or key in CLASSES else value) if value else None
            for key, value in row.items()
        }
        for row in rows
    ]


@pytest.mark.parametrize("top", [1, 2, 9])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_most_probable_classes_read_back_equal(suffix, top, tmp_path):
    answered = _answered()
    rows = _read(suffix, _written(suffix, top, [answered], tmp_path))
    assert [row["error"] for row in rows] == list(answered.errors)
    assert [row["image"] or "" for row in rows] == [*HARD_NAMES[:3], "\\xff.png", *HARD_NAMES[4:]]
    for row, values in zip(rows, answered.probabilities, strict=True):
        places = range(1, min(top, 3) + 1)
        assert f"class{min(top, 3) + 1}" not in row
        if row["error"]:
            assert all(row[f"class{place}"] is row[f"probability{place}"] is None for place in places)
            continue
        order = np.argsort(-values)
        assert [row[f"class{place}"] for place in places] == [CLASSES[index] for index in order[:top]]
        assert [row[f"probability{place}"] for place in places] == [values[index] for index in order[:top]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_all_probabilities_read_back_equal(suffix, tmp_path):
    answered = _answered()
    rows = _read(suffix, _written(suffix, None, [answered], tmp_path))
    assert list(rows[0]) == ["image", "error", *CLASSES]
    for row, values in zip(rows, answered.probabilities, strict=True):
        assert [row[name] for name in CLASSES] == ([None] * 3 if row["error"] else list(values))


def test_json_lines_are_what_predict_prints(tmp_path):
    answered = _answered()
    lines = _written(".jsonl", 2, [answered], tmp_path).decode().split("\n")
    rows = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == ""
    assert rows[1] == {"image": 'a, "b".png', "error": "the file is empty"}
    first = answered.probabilities[0]
    order = np.argsort(-first)[:2]
    assert [entry["name"] for entry in rows[0]["classes"]] == [CLASSES[index] for index in order]
    assert [np.float32(entry["probability"]) for entry in rows[0]["classes"]] == list(first[order])
    every = _written(".jsonl", None, [answered], tmp_path).decode().split("\n")
    values = json.loads(every[0])["probabilities"]
    assert list(map(np.float32, values.values())) == list(first)
    assert tuple(values) == CLASSES
    assert len(str(values["tulips"])) <= 14


def test_numbers_have_no_more_digits_than_they_need(tmp_path):
    answered = AnsweredBatch(
        names=("a",), errors=(None,), probabilities=np.array([[0.1, 0.2, 0.7]], np.float32)
    )
    assert _written(".csv", 1, [answered], tmp_path).endswith(b",0.7\n")
    assert b'"probability": 0.7}' in _written(".jsonl", 1, [answered], tmp_path)


def test_of_equal_probabilities_the_first_class_comes_first(tmp_path):
    equal = AnsweredBatch(names=("a",), errors=(None,), probabilities=np.full((1, 3), 1 / 3, np.float32))
    (row,) = _read(".csv", _written(".csv", 3, [equal], tmp_path))
    assert [row[f"class{place}"] for place in (1, 2, 3)] == list(CLASSES)


def test_row_groups_have_equal_sizes_whatever_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_formats, "_ROW_GROUP_CELLS", 40)
    batches = [_answered(count, seed) for seed, count in enumerate((2, 6, 3, 3, 6, 2, 4))]
    content = _written(".parquet", 3, batches, tmp_path)
    metadata = pq.read_metadata(io.BytesIO(content))
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert groups == [5, 5, 5, 5, 5, 1]
    rows = _read(".parquet", content)
    assert [row["image"] for row in rows] == [
        answer_formats.readable_name(name) for batch in batches for name in batch.names
    ]


def test_a_file_of_another_kind_is_told_what_is_allowed(tmp_path):
    columns = AnswerColumns(class_names=CLASSES, top=3)
    with pytest.raises(UserError, match=r"ends in '\.jsn'; allowed: \.csv, \.jsonl, \.parquet"):
        answer_format(tmp_path / "a.jsn", columns)
    with pytest.raises(UserError, match=r"ends in ''; allowed: \.csv, \.jsonl, \.parquet"):
        answer_format(tmp_path / "answers", columns)


def test_a_class_called_like_a_column_is_told(tmp_path):
    columns = AnswerColumns(class_names=("error", "fine"), top=None)
    with pytest.raises(UserError, match=r"two columns of .* would be called 'error'; write a \.jsonl file"):
        answer_format(tmp_path / "a.csv", columns)
    answer_format(tmp_path / "a.jsonl", columns)

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import UserError
from effnet.evaluation import answer_journal
from effnet.evaluation.answer_formats import AnswerColumns, answer_format
from effnet.evaluation.answer_journal import open_journal, unfinished_path
from effnet.evaluation.streaming import AnsweredBatch

CLASSES = ("a", "b", "c")
NAMES = [f"{index}.png" for index in range(20)] + ["7.png", os.fsdecode(b"\xff\n.png")]
BATCH = 3
SUFFIXES = (".csv", ".jsonl", ".parquet")


def _answers(names: list[str]) -> AnsweredBatch:
    """What a network would say: a function of the names, every fifth image is bad."""
    rows, errors = [], []
    for name in names:
        seed = sum(name.encode("utf-8", "surrogateescape"))
        errors.append("damaged" if seed % 5 == 0 else None)
        row = np.random.default_rng(seed).dirichlet((1, 1, 1)).astype(np.float32)
        rows.append(row if errors[-1] is None else row * np.nan)
    return AnsweredBatch(names=tuple(names), errors=tuple(errors), probabilities=np.stack(rows))


class Killed(BaseException):
    """The process is gone: nothing more is written."""


def _write(out: Path, *, stop_after: int = 99, is_killed: bool = False, names=NAMES) -> None:
    """Write answers; stop after some batches, perhaps without being able to note how far it came."""
    form = answer_format(out, AnswerColumns(class_names=CLASSES, top=2))
    with open_journal(out, form, {"network": 1}, names) as journal:
        left = list(journal.remaining())
        for number, start in enumerate(range(0, len(left), BATCH)):
            if number == stop_after:
                if is_killed:
                    journal._body.flush()
                    journal.commit = lambda: None
                raise Killed
            journal.append(_answers(left[start : start + BATCH]))
        journal.finish()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files that were never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for suffix in SUFFIXES:
        _write(folder / f"answers{suffix}")
    return {suffix: (folder / f"answers{suffix}").read_bytes() for suffix in SUFFIXES}


stops = st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 40)), max_size=5)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(stops=stops, commit_seconds=st.sampled_from([0.0, 1e9]))
@settings(max_examples=25)
def test_a_file_that_was_stopped_anywhere_is_the_same_file(
    suffix, stops, commit_seconds, whole, tmp_path_factory
):
    out = tmp_path_factory.mktemp("stopped") / f"answers{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_journal, "_COMMIT_SECONDS", commit_seconds)
        for after, is_killed, torn in stops:
            try:
                _write(out, stop_after=after, is_killed=is_killed)
            except Killed:
                assert not out.exists()
                if is_killed:  # A batch was being written.
                    with (unfinished_path(out) / "rows").open("ab") as file:
                        file.write(b"\x00torn,"[:torn] * torn)
            else:
                break
        else:
            _write(out)
    assert out.read_bytes() == whole[suffix]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_images_that_come_later_do_not_change_what_was_begun(tmp_path, whole):
    out = tmp_path / "answers.csv"
    with pytest.raises(Killed):
        _write(out, stop_after=2)
    _write(out, names=["0.png", "new.png", *NAMES[1:]])
    assert out.read_bytes() == whole[".csv"]


def test_being_killed_while_the_images_are_listed_begins_anew(tmp_path, whole):
    def listing():
        yield "other.png"
        raise Killed

    out = tmp_path / "answers.csv"
    with pytest.raises(Killed):
        _write(out, names=listing())
    assert list(tmp_path.iterdir()) == []
    unfinished_path(out).mkdir()
    (unfinished_path(out) / "images.jsonl").write_text('"other.png"\n')
    _write(out)
    assert out.read_bytes() == whole[".csv"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_being_killed_between_the_last_row_and_the_end_loses_nothing(suffix, tmp_path, whole, monkeypatch):
    out = tmp_path / f"answers{suffix}"

    def killed(_):
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(Killed):
        _write(out)
    monkeypatch.undo()
    assert out.exists()
    _write(out)
    assert out.read_bytes() == whole[suffix]
    assert not unfinished_path(out).exists()


def test_other_settings_are_named(tmp_path):
    out = tmp_path / "answers.csv"
    form = answer_format(out, AnswerColumns(class_names=CLASSES, top=2))
    with open_journal(out, form, {"network": 1, "top": 2, "images": ["a"]}, NAMES) as journal:
        journal.append(_answers(NAMES[:3]))
    with (
        pytest.raises(UserError, match=r"begun with other network and top, see .*plan\.json; give what"),
        open_journal(out, form, {"network": 2, "top": 3, "images": ["a"]}, NAMES),
    ):
        pass
    progress = json.loads((unfinished_path(out) / "progress.json").read_text())
    assert (progress["images"], progress["bad"]) == (3, sum(map(bool, _answers(NAMES[:3]).errors)))


def test_a_file_that_is_there_is_not_replaced(tmp_path):
    out = tmp_path / "answers.csv"
    out.write_text("precious")
    with pytest.raises(UserError, match="exists already; remove it, or give another file with --out"):
        _write(out)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]
    out.unlink()
    with pytest.raises(Killed):
        _write(out, stop_after=2)
    out.write_text("precious")
    with pytest.raises(UserError, match="exists already"):
        _write(out)
    assert out.read_text() == "precious"


def test_two_processes_do_not_write_the_same_file(tmp_path):
    out = tmp_path / "answers.csv"
    with pytest.raises(Killed):
        _write(out, stop_after=2)
    with (
        FileLock(unfinished_path(out) / "lock"),
        pytest.raises(UserError, match="another process is writing"),
    ):
        _write(out)
    _write(out)


def test_rows_that_are_gone_are_told(tmp_path):
    out = tmp_path / "answers.csv"
    with pytest.raises(Killed):
        _write(out, stop_after=2)
    (unfinished_path(out) / "rows").write_bytes(b"image,")
    with pytest.raises(UserError, match=r"damaged; remove .* to begin anew"):
        _write(out)


def test_a_full_disk_loses_only_what_was_not_written(tmp_path, whole, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    def write_until_full():
        with open_journal(out, form, {"network": 1}, NAMES) as journal:
            journal.append(_answers(NAMES[:BATCH]))
            monkeypatch.setattr(journal._body, "write", full)
            journal.append(_answers(NAMES[BATCH : 2 * BATCH]))

    out = tmp_path / "answers.csv"
    form = answer_format(out, AnswerColumns(class_names=CLASSES, top=2))
    with pytest.raises(OSError, match="No space left"):
        write_until_full()
    progress = json.loads((unfinished_path(out) / "progress.json").read_text())
    assert progress["images"] == BATCH
    _write(out)
    assert out.read_bytes() == whole[".csv"]

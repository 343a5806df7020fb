import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from effnet.data import walking
from effnet.evaluation.answer_journal import AnswerJournal, unfinished_path
from effnet.weights import load_weights, save_weights


@pytest.fixture
def many(photos, tmp_path):
    """A folder of photos, two of which cannot be read."""
    folder = tmp_path / "many"
    for number in range(3):
        shutil.copytree(photos, folder / str(number))
    (folder / "1" / "red" / "0.jpg").write_bytes(b"no image")
    (folder / "2" / "gone.png").symlink_to("nowhere")
    return folder


def _rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def test_a_file_has_a_row_for_each_image_in_order(effnet, finished, many, tmp_path):
    answer = effnet("predict", finished, many, "--out", tmp_path / "a.csv", "--top", "2")
    assert (answer.code, answer.out) == (0, f"{tmp_path}/a.csv: 55 images, 2 of them unreadable\n")
    assert answer.err.splitlines() == [
        f"{many}/1/red/0.jpg: not an image of a known format",
        f"{many}/2/gone.png: is a link to nothing",
    ]
    rows = _rows(tmp_path / "a.csv")
    names = [row["image"] for row in rows]
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert [row["image"] for row in rows if row["error"]] == [
        f"{many}/1/red/0.jpg", f"{many}/2/gone.png"
    ]  # fmt: skip
    printed = json.loads(effnet("predict", finished, many, "--top", "2", "--json").out)
    for row, entry in zip(rows, printed, strict=True):
        assert row["image"] == entry["image"]
        assert row["error"] == entry.get("error", "")
        if not row["error"]:
            assert [row["class1"], row["class2"]] == [found["name"] for found in entry["classes"]]
            assert float(row["probability1"]) == pytest.approx(entry["classes"][0]["probability"], rel=1e-4)


def test_all_formats_say_the_same(effnet, finished, many, tmp_path):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert effnet("predict", finished, many, "--out", tmp_path / name, "--probabilities").code == 0
    rows = _rows(tmp_path / "a.csv")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert list(rows[0]) == list(table[0]) == ["image", "error", "blue", "green", "red"]
    for row, line, entry in zip(rows, lines, table, strict=True):
        assert row["image"] == line["image"] == entry["image"]
        assert row["error"] == line.get("error", "") == (entry["error"] or "")
        for color in () if row["error"] else ("blue", "green", "red"):
            assert float(row[color]) == line["probabilities"][color] == pytest.approx(entry[color], rel=1e-6)


@pytest.fixture
def interrupt_at(monkeypatch):
    """Let Ctrl-C come when so many images have their rows."""
    append = AnswerJournal.append

    def patch(*counts: int) -> None:
        def interrupted(journal, answered):
            append(journal, answered)
            if journal.progress.images in counts:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(AnswerJournal, "append", interrupted)

    return patch


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_interrupted_command_ends_with_the_same_file(effnet, finished, many, suffix, interrupt_at):
    command = ("predict", finished, many, "--batch-size", "4", "--out")
    whole, stopped = (many.parent / f"{name}.{suffix}" for name in ("whole", "stopped"))
    effnet(*command, whole)
    interrupt_at(8, 40)
    first = effnet(*command, stopped)
    assert (first.code, first.out) == (130, "")
    assert first.err.endswith("effnet: stopped after 8 of 55 images; the same command continues\n")
    assert not stopped.exists()
    second = effnet(*command, stopped, "--workers", "1")
    assert second.code == 130
    assert second.err.startswith("continued at image 8 of 55\n")
    assert effnet(*command, stopped).code == 0
    assert stopped.read_bytes() == whole.read_bytes()
    assert not unfinished_path(stopped).exists()


def test_a_killed_command_ends_with_the_same_file(effnet, finished, many, tmp_path):
    command = ["predict", str(finished), str(many), "--batch-size", "1", "--workers", "1", "--out"]
    effnet(*command, tmp_path / "whole.csv")
    slow = "import time, effnet.evaluation.answer_journal as j\n"
    slow += "j._COMMIT_SECONDS, append = 0, j.AnswerJournal.append\n"
    slow += "j.AnswerJournal.append = lambda *given: (append(*given), time.sleep(0.02))\n"
    slow += "from effnet.cli.main import main\nmain()"
    stopped = tmp_path / "stopped.csv"
    rows = unfinished_path(stopped) / "rows"
    process = subprocess.Popen([sys.executable, "-c", slow, *command, str(stopped)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and not (rows.is_file() and rows.stat().st_size > 500):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not stopped.exists()
    assert effnet(*command, stopped).code == 0
    assert stopped.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_engine_answers_like_the_network_and_goes_on_with_its_file(
    effnet, finished, many, interrupt_at, tmp_path
):
    command = ("predict", finished, many, "--batch-size", "8", "--probabilities", "--out")
    assert effnet(*command, tmp_path / "eager.csv").code == 0
    named = effnet(*command, tmp_path / "named.csv", "--engine", "openvino")
    assert named.code == 0
    assert named.err.splitlines()[0] == "engine openvino: as asked for"
    pairs = zip(_rows(tmp_path / "eager.csv"), _rows(tmp_path / "named.csv"), strict=True)
    for one, other in pairs:
        assert one["error"] == other["error"]
        for color in () if one["error"] else ("blue", "green", "red"):
            assert float(one[color]) == pytest.approx(float(other[color]), rel=1e-4, abs=1e-6)
    stopped = tmp_path / "stopped.csv"
    interrupt_at(16)
    assert effnet(*command, stopped, "--engine", "openvino").code == 130
    assert "begun with the engine openvino; continue it with" in mistake_after_progress(
        effnet(*command, stopped, "--engine", "eager")
    )
    answer = effnet(*command, stopped)
    assert answer.code == 0
    assert "engine openvino: as for the first rows" in answer.err.splitlines()
    assert stopped.read_bytes() == (tmp_path / "named.csv").read_bytes()
    printed = effnet("predict", finished, many, "--engine", "openvino", "--top", "1")
    assert printed.err.startswith("engine openvino: as asked for\n")


def mistake_after_progress(answer) -> str:
    """Return the last line of what a command says that the user got wrong."""
    assert answer.code == 2
    return answer.err.splitlines()[-1]


def test_another_network_or_other_settings_do_not_continue_a_file(
    effnet, mistake, finished, many, interrupt_at
):
    out, same, other = (many.parent / name for name in ("a.csv", "same", "other"))
    interrupt_at(16)
    begun = ("predict", finished, many, "--out", out, "--batch-size", "8")
    assert effnet(*begun).code == 130
    assert "begun with other batch_size and top, see" in mistake(*begun[:-1], "4", "--top", "1")
    assert "begun with other images, see" in mistake("predict", finished, many / "0", *begun[3:])
    shutil.copytree(finished, same)
    shutil.copytree(finished, other)
    weights = load_weights(str(finished / "checkpoints" / "best.safetensors"))
    weights.state["classifier.bias"] += 1e-6
    save_weights(
        other / "checkpoints" / "best.safetensors",
        weights.state,
        weights.spec,
        class_names=weights.class_names,
        preprocessing=weights.preprocessing,
        provenance="",
    )
    assert "begun with other network, see" in mistake("predict", other, *begun[2:])
    assert effnet("predict", same, *begun[2:]).code == 0


def test_ctrl_c_while_the_images_are_listed_begins_anew(effnet, finished, many, monkeypatch):
    listed = walking.is_image_name

    def interrupted(name):
        if name == "3.png":
            signal.raise_signal(signal.SIGINT)
        return listed(name)

    monkeypatch.setattr(walking, "is_image_name", interrupted)
    answer = effnet("predict", finished, many, "--out", many.parent / "a.csv")
    assert answer.code == 130
    assert answer.err == "effnet: stopped while the images were being listed; the same command begins anew\n"
    assert [path.name for path in many.parent.iterdir()] == ["many"]


def test_images_come_from_a_list(effnet, finished, photos, tmp_path, monkeypatch):
    names = [str(photos / "red" / "0.jpg"), str(photos / "blue" / "1.png"), str(photos / "red" / "0.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(names))
    answer = effnet("predict", finished, "--from-list", tmp_path / "list.txt", "--top", "1")
    assert [line.rpartition(": ")[0] for line in answer.out.splitlines()] == names
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\0".join(names).encode())))
    assert effnet("predict", finished, "--from-list", "-", "--out", tmp_path / "a.jsonl").code == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == names
    assert lines[0] == lines[2]


def test_names_of_any_bytes_are_printed_and_written(effnet, finished, photos, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"new\nline.jpg", b"\xff.jpg"):
        shutil.copy(photos / "red" / "0.jpg", os.path.join(os.fsencode(folder), name))  # noqa: PTH118
    answer = effnet("predict", finished, folder)
    assert answer.code == 0
    assert [line.partition(": ")[0] for line in answer.out.splitlines()] == [
        f"{folder}/new\\nline.jpg", f"{folder}/\\xff.jpg"
    ]  # fmt: skip
    assert effnet("predict", finished, folder, "--out", tmp_path / "a.csv").code == 0
    assert [row["image"] for row in _rows(tmp_path / "a.csv")] == [
        f"{folder}/new\nline.jpg", f"{folder}/\\xff.jpg"
    ]  # fmt: skip


def test_a_flood_of_unreadable_images_is_cut_short(effnet, finished, tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(25):
        (tmp_path / "texts" / f"{number}.jpg").write_text("no image")
    answer = effnet("predict", finished, tmp_path / "texts", "--out", tmp_path / "a.csv")
    assert answer.code == 2
    *told, more, last = answer.err.splitlines()
    assert len(told) == 20
    assert more == "more images are unreadable; the file names them all"
    assert last == f"effnet: none of the 25 images could be read; {tmp_path}/a.csv says why"
    assert len(_rows(tmp_path / "a.csv")) == 25


def test_what_was_written_is_told_as_json(effnet, finished, many, tmp_path):
    answer = effnet("predict", finished, many, "--out", tmp_path / "a.csv", "--json")
    assert json.loads(answer.out) == {"out": str(tmp_path / "a.csv"), "images": 55, "bad_images": 2}


def test_mistakes_are_told_before_anything_is_written(mistake, finished, many, tmp_path):
    out = tmp_path / "a.csv"
    assert "give either images" in mistake("predict", finished)
    assert "give either images" in mistake("predict", finished, many, "--from-list", "-")
    assert "ends in '.xls'; allowed: .csv" in mistake("predict", finished, many, "--out", tmp_path / "a.xls")
    assert "folder of --out" in mistake("predict", finished, many, "--out", tmp_path / "gone" / "a.csv")
    assert "--probabilities is for files" in mistake("predict", finished, many, "--probabilities")
    (tmp_path / "empty").mkdir()
    assert "has no image" in mistake("predict", finished, tmp_path / "empty", "--out", out)
    assert "has no image" in mistake("predict", finished, many, tmp_path / "empty", "--out", out)
    out.write_text("precious")
    assert "exists already" in mistake("predict", finished, many, "--out", out)
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "empty", "many"]

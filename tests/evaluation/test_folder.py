import csv
import json

import pyarrow.parquet as pq
import pytest
from PIL import Image

from effnet.errors import UserError
from effnet.evaluation.assessment import assess
from effnet.evaluation.confusion import confusion
from effnet.evaluation.folder import prepare_folder, write_evaluation, write_sweep
from effnet.evaluation.interval import Interval
from effnet.evaluation.metrics import judge


@pytest.fixture
def written(draw_answers, tmp_path):
    answers = draw_answers(20, 3)
    write_evaluation(tmp_path, answers, assess(answers, resamples=20), {"top1": 0.5})
    return answers, tmp_path


def test_every_image_has_a_row(written):
    answers, folder = written
    rows = pq.read_table(folder / "answers.parquet").to_pylist()
    assert [row["image"] for row in rows] == list(answers.names)
    for row, probabilities, label in zip(rows, answers.probabilities, answers.labels, strict=True):
        assert row["label"] == answers.class_names[label]
        assert row["answer"] == row["classes"][0] == answers.class_names[probabilities.argmax()]
        assert row["is_right"] == (probabilities.argmax() == label)
        assert row["label_probability"] == pytest.approx(probabilities[label])
        assert row["probabilities"] == sorted(probabilities.tolist(), reverse=True)


def test_the_matrix_is_a_table(written):
    answers, folder = written
    with (folder / "confusion.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["true \\ answered", *answers.class_names]
    assert [list(map(int, row[1:])) for row in rows] == confusion(answers).tolist()


def test_pictures_and_scores_are_whole_files(written):
    _, folder = written
    assert json.loads((folder / "scores.json").read_text()) == {"top1": 0.5}
    names = {path.name for path in folder.iterdir()}
    assert names == {"answers.parquet", "confusion.csv", "confusion.png", "reliability.png", "scores.json"}
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert image.width > 400


def test_losses_are_those_that_are_averaged(written):
    import torch

    answers, folder = written
    losses = judge(torch.from_numpy(answers.logits), torch.from_numpy(answers.labels))[:, 2]
    assert pq.read_table(folder / "answers.parquet")["loss"].to_pylist() == pytest.approx(losses.tolist())


def test_images_with_several_labels_have_no_matrix(make_answers, tmp_path):
    answers = make_answers([[1.0, -1.0], [0.0, 1.0]], [[1, 0], [1, -1]])
    write_evaluation(tmp_path, answers, assess(answers, resamples=20), {})
    assert {path.name for path in tmp_path.iterdir()} == {"answers.parquet", "scores.json"}
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["labels"] for row in rows] == [["class 1", "class 0"], ["class 1"]]


def test_a_sweep_has_a_picture(tmp_path):
    top1 = [Interval(value=value, low=value - 0.1, high=value + 0.1, confidence=0.9) for value in (0.5, 0.6)]
    write_sweep(tmp_path, {"sizes": []}, [32, 64], top1)
    assert {path.name for path in tmp_path.iterdir()} == {"sizes.json", "sizes.png"}


def test_a_folder_is_made_in_one_that_exists(tmp_path):
    assert prepare_folder(tmp_path / "new").is_dir()
    assert prepare_folder(tmp_path / "new").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"must be a folder, and '.*file' is a file"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(UserError, match="must be in a folder that exists"):
        prepare_folder(tmp_path / "a" / "b")

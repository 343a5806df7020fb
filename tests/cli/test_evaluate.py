import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from effnet.api import AnswerSettings, answer, evaluate, load_soup
from effnet.evaluation.assessment import scores_of
from effnet.evaluation.comparison import compare
from effnet.training.journal import read_metrics
from effnet.weights import load_weights, save_weights


@pytest.fixture(scope="session")
def other(finished, tmp_path_factory):
    """A file of the same network with other weights, and the same classes."""
    weights = load_weights(str(finished / "checkpoints" / "best.safetensors"))
    generator = torch.Generator().manual_seed(1)
    state = {
        name: tensor + 0.3 * tensor.std(correction=0) * torch.randn(tensor.shape, generator=generator)
        if name.endswith("weight")
        else tensor
        for name, tensor in weights.state.items()
    }
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_weights(
        path,
        state,
        weights.spec,
        class_names=weights.class_names,
        preprocessing=weights.preprocessing,
        provenance="test",
    )
    return path


def document_of(answer):
    assert (answer.code, answer.err) == (0, "")
    return json.loads(answer.out)


def test_the_numbers_are_those_that_training_printed(effnet, finished):
    document = document_of(effnet("evaluate", finished, "--json"))
    records = [record for record in read_metrics(finished / "metrics.jsonl") if "val_top1" in record]
    best = max(records, key=lambda record: (record["val_top1"], record["step"]))
    assert document["top1"] == best["val_top1"]
    assert document["loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    assert document["image_size"] is None


def test_all_numbers_are_those_of_the_streaming_evaluation(finished, photos):
    assert scores_of(answer(finished, photos)) == evaluate(finished, photos)


def test_everything_that_is_measured_is_in_the_document(effnet, finished, photos):
    document = document_of(effnet("evaluate", finished, photos, "--json", "--confidence", "0.8"))
    assert [row["name"] for row in document["report"]["classes"]] == ["blue", "green", "red"]
    assert document["intervals"].keys() == {"top1", "top5", "loss", "macro_f1", "macro_recall"}
    assert document["intervals"]["top1"]["confidence"] == 0.8
    assert document["calibration"]["temperature"] > 0
    wrong = sum(pair["images"] for pair in document["confusions"])
    assert wrong == round(18 * (1 - document["top1"]))


def test_a_folder_gets_numbers_pictures_and_answers(effnet, finished, photos, tmp_path):
    out = tmp_path / "evaluation"
    document = document_of(effnet("evaluate", finished, photos, "--json", "--out", out))
    assert json.loads((out / "scores.json").read_text()) == document
    assert {path.name for path in out.iterdir()} == {
        "answers.parquet", "confusion.csv", "confusion.png", "reliability.png", "scores.json"
    }  # fmt: skip
    assert np.mean(pq.read_table(out / "answers.parquet")["is_right"].to_pylist()) == document["top1"]


def test_sizes_are_compared(effnet, mistake, finished, photos, tmp_path):
    arguments = ("evaluate", finished, photos, "--sizes", "8,16,32")
    found = document_of(effnet(*arguments, "--json", "--out", tmp_path / "out"))["sizes"]
    assert [row["image_size"] for row in found] == [8, 16, 32]
    assert found[0]["macs"] < found[1]["macs"] < found[2]["macs"]
    for row in found:
        assert row["top1"] == evaluate(finished, photos, image_size=row["image_size"]).top1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sizes.json", "sizes.png"}
    assert re.search(
        r"^16 px +0\.\d{3} G +\S+% +\S+% to \S+% +100\.00%", effnet(*arguments).out, re.MULTILINE
    )
    assert "give image sizes from 1 to 4096 pixels" in mistake("evaluate", finished, "--sizes", "8,,16")
    assert "give image sizes from 1 to 4096 pixels" in mistake("evaluate", finished, "--sizes", "5000")
    assert "leave --size and --compare out" in mistake("evaluate", finished, "--sizes", "8", "--size", "8")


@pytest.mark.parametrize("tta", ["flip", "five-crop", "ten-crop"])
def test_views_of_each_image_are_averaged(effnet, finished, photos, tta):
    document = document_of(effnet("evaluate", finished, photos, "--json", "--tta", tta))
    plain = document_of(effnet("evaluate", finished, photos, "--json"))
    assert document["views"] == tta
    assert document["loss"] != plain["loss"]
    assert document["loss"] == pytest.approx(plain["loss"], rel=0.3)


def test_mirrored_photos_have_the_same_answers_to_both_views(finished, photos, tmp_path):
    from PIL import Image, ImageOps

    for file in photos.rglob("*.png"):
        (tmp_path / "mirrored" / file.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            ImageOps.mirror(image).save(tmp_path / "mirrored" / file.parent.name / file.name)
    settings = AnswerSettings(views="flip")
    mirrored = answer(finished, tmp_path / "mirrored", settings=settings)
    usual = answer(finished, photos, settings=settings)
    rows = np.array([usual.names.index(name) for name in mirrored.names])
    # Resizing a mirrored image rounds otherwise here and there.
    np.testing.assert_allclose(mirrored.probabilities, usual.probabilities[rows], atol=5e-3)


def test_a_soup_of_equal_weights_answers_as_they_do(finished, photos):
    one, three = answer(finished, photos), answer(finished, photos, soup=[finished, finished])
    np.testing.assert_array_equal(three.logits, one.logits)


def test_a_soup_is_kept_for_further_use(effnet, finished, other, photos, tmp_path):
    arguments = ("evaluate", finished, photos, "--json", "--soup", other)
    document = document_of(effnet(*arguments, "--out", tmp_path / "out"))
    assert document["soup"] == [str(other)]
    again = document_of(effnet("evaluate", tmp_path / "out" / "soup.safetensors", photos, "--json"))
    assert again["loss"] == pytest.approx(document["loss"], rel=1e-6)
    expected = load_soup([finished, other]).state
    found = load_weights(str(tmp_path / "out" / "soup.safetensors")).state
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_an_ensemble_averages_probabilities(effnet, mistake, finished, other, photos):
    together = answer(finished, photos, ensemble=[other])
    parts = [answer(source, photos).probabilities for source in (finished, other)]
    np.testing.assert_allclose(together.probabilities, np.mean(parts, axis=0), rtol=1e-4)
    document = document_of(effnet("evaluate", finished, photos, "--json", "--ensemble", other))
    assert document["loss"] == pytest.approx(scores_of(together).loss, rel=1e-6)
    message = mistake("evaluate", finished, photos, "--ensemble", other, "--soup", other)
    assert "not both; give one of them" in message


def test_two_networks_are_compared_image_by_image(effnet, finished, other, photos):
    document = document_of(effnet("evaluate", finished, photos, "--json", "--compare", other))
    expected = compare(answer(finished, photos), answer(other, photos))
    assert document["comparison"] == {"with": str(other), **expected.to_dict()}
    out = effnet("evaluate", finished, photos, "--compare", other).out
    assert re.search(r"^difference [+-]\d+\.\d\d points \(95% interval ", out, re.MULTILINE)
    assert re.search(r"on \d+ images, only the second on \d+: exact McNemar test, p = ", out)


def test_a_run_is_compared_on_its_own_images(effnet, finished, other):
    document = document_of(effnet("evaluate", finished, "--json", "--compare", other))
    assert document["comparison"]["images"] == document["images"] == 3


def test_networks_of_other_classes_cannot_be_compared(mistake, finished, photos, tmp_path):
    weights = load_weights(str(finished / "checkpoints" / "best.safetensors"))
    save_weights(
        tmp_path / "w.safetensors",
        weights.state,
        weights.spec,
        class_names=("blue", "green", "violet"),
        preprocessing=weights.preprocessing,
        provenance="",
    )
    message = mistake("evaluate", finished, photos, "--compare", tmp_path / "w.safetensors")
    assert "the images have class 'red', which is none of the network's 3 classes" in message


def test_a_part_of_the_classes_can_be_measured_alone(effnet, finished, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "some", ignore=shutil.ignore_patterns("green"))
    document = document_of(effnet("evaluate", finished, tmp_path / "some", "--json", "--subset"))
    answers = answer(finished, tmp_path / "some")
    part = answers.logits[:, [answers.class_names.index(name) for name in ("blue", "red")]]
    labels = [("blue", "red").index(answers.class_names[label]) for label in answers.labels]
    assert document["top1"] == pytest.approx((part.argmax(1) == labels).mean())
    assert document["class_top1"].keys() == {"blue", "red"}
    whole = document_of(effnet("evaluate", finished, tmp_path / "some", "--json"))
    assert document["loss"] < whole["loss"]


def test_weights_without_names_ask_for_them(mistake, effnet, finished, photos, tmp_path):
    weights = load_weights(str(finished / "checkpoints" / "best.safetensors"))
    unnamed = tmp_path / "unnamed.safetensors"
    save_weights(
        unnamed,
        weights.state,
        weights.spec,
        class_names=None,
        preprocessing=weights.preprocessing,
        provenance="",
    )
    assert "give them with --class-names" in mistake("evaluate", unnamed, photos)
    (tmp_path / "names.txt").write_text("blue\ngreen\nred\n")
    named = ("--class-names", tmp_path / "names.txt", "--json")
    document = document_of(effnet("evaluate", unnamed, photos, *named))
    together = document_of(effnet("evaluate", unnamed, photos, *named, "--ensemble", unnamed))
    assert together["top1"] == document["top1"]


def test_more_logits_than_memory_allows_are_only_counted(effnet, mistake, finished, photos, monkeypatch):
    expected = evaluate(finished, photos).to_dict()
    monkeypatch.setattr("effnet.api.answering.MOST_LOGIT_BYTES", 18 * 3 * 4 - 1)
    assert document_of(effnet("evaluate", finished, photos, "--json")) == expected
    out = effnet("evaluate", finished, photos).out
    assert re.search(r"^top-1 \S+%, top-5 100\.00%, loss \S+, 18 images$", out, re.MULTILINE)
    message = mistake("evaluate", finished, photos, "--subset")
    assert "the logits of 18 images and 3 classes take 0.0 GB" in message
    assert "measure fewer images, or plain scores alone" in message


def test_several_processes_measure_accuracy_and_loss_alone(mistake, finished, photos, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    message = mistake("evaluate", finished, photos, "--tta", "flip")
    assert "--tta needs all answers in one process; start effnet without torchrun" in message


def test_several_labels_have_average_precision(effnet, finished, photos, tmp_path):
    import pyarrow as pa

    files = sorted(photos.rglob("*.*"))
    labels = [[path.parent.name, ("blue", "green")[index % 2]] for index, path in enumerate(files)]
    table = pa.table({"image": [path.read_bytes() for path in files], "labels": labels})
    pq.write_table(table, tmp_path / "test.parquet")
    arguments = ("evaluate", finished, tmp_path / "test.parquet", "--threshold", "0.3")
    document = document_of(effnet(*arguments, "--json", "--out", tmp_path / "out"))
    assert document["report"]["threshold"] == 0.3
    assert 0 < document["report"]["macro"]["average_precision"] <= 1
    assert document["calibration"] is None
    assert effnet(*arguments).out.startswith("label ")
    message = effnet(*arguments, "--compare", finished).err
    assert "--compare needs images with one label each, and these may have several" in message


def test_shares_are_checked_before_anything_is_measured(mistake, finished):
    assert "--confidence must be above 0 and below 1, got 95" in mistake(
        "evaluate", finished, "--confidence", "95"
    )
    assert "--threshold must be above 0 and below 1, got 0" in mistake(
        "evaluate", finished, "--threshold", "0"
    )


def test_exported_files_are_measured_and_asked_together_but_not_averaged(
    effnet, mistake, finished, photos, tmp_path
):
    file = tmp_path / "net.pt2"
    assert effnet("export", finished, "--to", "pt2", "--out", file).code == 0
    compared = document_of(effnet("evaluate", file, photos, "--json", "--compare", finished, "--tta", "flip"))
    assert compared["comparison"]["only_first"] == compared["comparison"]["only_second"] == 0
    assert compared["comparison"]["loss_difference"]["value"] == pytest.approx(0, abs=1e-4)
    message = mistake("evaluate", finished, photos, "--soup", file)
    assert "was exported, so its weights cannot be averaged; give the run itself" in message


def test_answers_that_are_all_right_have_no_temperature(effnet, finished, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "some", ignore=shutil.ignore_patterns("green", "blue"))
    out = effnet("evaluate", finished, tmp_path / "some", "--subset").out
    assert "temperature of the logits 0.010 (the limit: the answers are all right, or say nothing)" in out
    assert re.search(r"^top-1 100\.00% \(95% interval 54\.07% to 100\.00%\)", out, re.MULTILINE)

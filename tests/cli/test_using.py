import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from effnet.arch import network, released_preprocessing
from effnet.nn import EfficientNet
from effnet.training.journal import read_metrics
from effnet.weights import hub, load_weights, save_weights

# Predicting


def test_images_are_answered_in_order(effnet, finished, photos):
    answer = effnet("predict", finished, photos / "red" / "0.jpg", photos / "blue" / "1.png", "--top", "2")
    first, second = answer.out.splitlines()
    assert (answer.code, answer.err) == (0, "")
    assert re.fullmatch(rf"{photos}/red/0\.jpg: \w+ \d+\.\d%, \w+ \d+\.\d%", first)
    assert second.startswith(f"{photos}/blue/1.png: ")


def test_a_folder_is_all_its_images(effnet, finished, photos):
    document = json.loads(effnet("predict", finished, photos, "--json", "--top", "1").out)
    assert [entry["image"] for entry in document] == [str(path) for path in sorted(photos.rglob("*.*"))]
    assert all(len(entry["classes"]) == 1 for entry in document)


def test_more_classes_than_there_are_is_all_of_them(effnet, finished, photos):
    (entry,) = json.loads(effnet("predict", finished, photos / "red" / "0.jpg", "--json", "--top", "9").out)
    assert {found["name"] for found in entry["classes"]} == {"blue", "green", "red"}
    assert sum(found["probability"] for found in entry["classes"]) == pytest.approx(1)


def test_a_bad_image_is_reported_and_the_others_are_answered(effnet, finished, photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    answer = effnet("predict", finished, bad, photos / "red" / "0.jpg")
    assert answer.code == 0
    assert answer.err == f"{bad}: not an image of a known format\n"
    assert answer.out.startswith(f"{photos}/red/0.jpg: ")
    document = json.loads(effnet("predict", finished, bad, photos / "red" / "0.jpg", "--json").out)
    assert [entry.keys() for entry in document] == [{"image", "error"}, {"image", "classes"}]


def test_bad_images_alone_are_a_mistake(effnet, finished, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    answer = effnet("predict", finished, tmp_path / "bad.jpg")
    assert (answer.code, answer.out) == (2, "")
    assert "none of the images could be read" in answer.err
    assert "Traceback" not in answer.err


def test_images_that_are_not_there_are_told(mistake, finished, tmp_path):
    assert "gone.jpg' does not exist" in mistake("predict", finished, tmp_path / "gone.jpg")
    assert "has no image" in mistake("predict", finished, tmp_path)


def test_a_run_or_weights_that_are_not_there_are_told(mistake, finished, photos, tmp_path):
    image = photos / "red" / "0.jpg"
    assert "there is no file of weights" in mistake("predict", tmp_path / "gone", image)
    assert "holds no run" in mistake("predict", tmp_path, image)
    assert "other layers" in mistake("predict", finished, image, "--model", "v2-s")


def test_a_misspelt_run_is_not_looked_for_on_the_hub(mistake, finished, photos, tmp_path, monkeypatch):
    asked = []

    def fetch(name, file):
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    (tmp_path / "runs").mkdir()
    shutil.copytree(finished, tmp_path / "runs" / "monday")
    monkeypatch.chdir(tmp_path)
    assert "did you mean" in mistake("predict", "runs/mondy", photos / "red" / "0.jpg")
    assert asked == []


def test_a_folder_named_like_an_owner_on_the_hub_does_not_hide_it(effnet, photos, tmp_path, monkeypatch):
    asked = []

    def fetch(name, file):
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    (tmp_path / "timm" / "models").mkdir(parents=True)  # a checkout of the library
    monkeypatch.chdir(tmp_path)
    effnet("predict", "timm/tf_efficientnetv2_b0.in1k", photos / "red" / "0.jpg")
    assert asked == ["timm/tf_efficientnetv2_b0.in1k"]


def test_a_run_that_was_never_evaluated_is_told(mistake, finished, photos, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    message = mistake("predict", tmp_path / "run", photos / "red" / "0.jpg")
    assert (
        "has not been evaluated yet, so it has no weights to use; continue it with: effnet train --resume "
        in message
    )


def test_weights_that_are_damaged_are_told(mistake, finished, photos, tmp_path):
    weights = tmp_path / "best.safetensors"
    weights.write_bytes((finished / "checkpoints" / "best.safetensors").read_bytes()[:-100])
    assert "not a whole safetensors file" in mistake("predict", weights, photos / "red" / "0.jpg")


# Evaluating


def test_a_run_is_evaluated_on_its_own_validation_split(effnet, finished):
    document = json.loads(effnet("evaluate", finished, "--json").out)
    best = max(
        (record["val_top1"], record["step"])
        for record in read_metrics(finished / "metrics.jsonl")
        if "val_top1" in record
    )
    assert document["top1"] == pytest.approx(best[0])
    assert (document["images"], document["bad_images"]) == (3, 0)
    assert set(document["class_top1"]) == {"blue", "green", "red"}


def test_other_images_can_be_given(effnet, finished, photos):
    document = json.loads(effnet("evaluate", finished, photos, "--json", "--batch-size", "5").out)
    assert document["images"] == 18
    file = finished / "checkpoints" / "best.safetensors"
    again = json.loads(effnet("evaluate", file, photos, "--json").out)
    assert again["class_top1"] == document["class_top1"]
    assert again["loss"] == pytest.approx(document["loss"], rel=1e-5)


def test_an_evaluation_for_people_has_a_line_a_class(effnet, finished):
    out = effnet("evaluate", finished).out
    assert re.search(r"^green +(\d+\.\d\d% +){3}1$", out, re.MULTILINE)
    assert re.search(
        r"^top-1 \S+% \(95% interval \S+% to \S+%\), top-5 100\.00%, loss \d\.\d{4}, 3 images$",
        out,
        re.MULTILINE,
    )
    assert "(cross-fitted)" in out


def test_images_to_evaluate_on_are_needed_where_weights_are_given(mistake, finished):
    file = finished / "checkpoints" / "best.safetensors"
    assert "is no run, so it has no validation images of its own; give DATA" in mistake("evaluate", file)


def test_classes_that_the_network_lacks_are_told(mistake, finished, photos, tmp_path):
    shutil.copytree(photos / "red", tmp_path / "photos" / "violet")
    message = mistake("evaluate", finished, tmp_path / "photos")
    assert "class 'violet', which is none of the network's 3 classes" in message


def test_images_none_of_which_can_be_read_are_told(mistake, finished, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    for file in (tmp_path / "photos").rglob("*.*"):
        file.write_bytes(b"")
    assert "read" in mistake("evaluate", finished, tmp_path / "photos")


# Exporting


@pytest.fixture(scope="module")
def torchvision_like(tmp_path_factory):
    """Weights of a network that torchvision and timm have both."""
    from dataclasses import replace

    spec = replace(network("v1-b0"), padding="symmetric", norm_epsilon=1e-5, num_classes=3)
    path = tmp_path_factory.mktemp("weights") / "b0.safetensors"
    torch.manual_seed(0)
    save_weights(
        path,
        EfficientNet(spec).state_dict(),
        spec,
        class_names=("a", "b", "c"),
        preprocessing=released_preprocessing(spec),
        provenance="test",
    )
    return path


def assert_same_weights(state, other):
    assert state.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_network_is_exported_to_timm(effnet, torchvision_like, tmp_path):
    answer = effnet("export", torchvision_like, "--to", "timm", "--out", tmp_path / "timm")
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert answer.code == 0
    assert f"timm.create_model('local-dir:{tmp_path / 'timm'}', pretrained=True)" in answer.out
    assert (config["architecture"], config["num_classes"]) == ("efficientnet_b0", 3)
    exported, original = load_weights(str(tmp_path / "timm")), load_weights(str(torchvision_like))
    assert exported.class_names == ("a", "b", "c")
    assert exported.preprocessing == original.preprocessing
    assert_same_weights(exported.state, original.state)


def test_what_was_exported_to_timm_can_be_used(effnet, torchvision_like, photos, tmp_path):
    effnet("export", torchvision_like, "--to", "timm", "--out", tmp_path / "timm")
    answers = [
        effnet("predict", source, photos / "red" / "0.jpg")
        for source in (torchvision_like, tmp_path / "timm")
    ]
    assert answers[0].code == 0
    assert answers[1] == answers[0]


def test_a_network_is_exported_to_torchvision(effnet, torchvision_like, tmp_path):
    file = tmp_path / "tv.safetensors"
    answer = effnet("export", torchvision_like, "--to", "torchvision", "--out", file)
    assert answer.code == 0
    assert "torchvision.models.efficientnet_b0(num_classes=3)" in answer.out
    original = load_weights(str(torchvision_like))
    assert_same_weights(load_weights(str(file), original.spec).state, original.state)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_network_that_the_library_lacks_is_told(mistake, finished, tmp_path, library):
    message = mistake("export", finished, "--to", library, "--out", tmp_path / "out")
    assert f"{library} has no network with the layers of tiny" in message
    assert not (tmp_path / "out").exists()


# Several labels, and names


@pytest.fixture
def several(photos, tmp_path):
    """The photos in a table, in which each has a second class."""
    files = sorted(photos.rglob("*.*"))
    labels = [[path.parent.name, ("blue", "green")[index % 2]] for index, path in enumerate(files)]
    table = pa.table({"image": [path.read_bytes() for path in files], "labels": labels})
    pq.write_table(table, tmp_path / "test.parquet")
    return tmp_path / "test.parquet"


def test_several_labels_are_measured_by_their_own_numbers(effnet, finished, several):
    answer = effnet("evaluate", finished, several)
    assert answer.code == 0
    assert re.search(
        r"^PR-AUC 0\.\d{4} \(within \S+\), precision@1 \S+%, precision@5", answer.out, re.MULTILINE
    )
    assert re.search(r"^mean average precision \S+%; from probability 0.5 on", answer.out, re.MULTILINE)
    document = json.loads(effnet("evaluate", finished, several, "--json").out)
    assert {"pr_auc", "recall_at_1", "recall_at_5", "top1", "top5"} <= document.keys()
    assert document["images"] == pq.read_metadata(several).num_rows


def test_splits_to_measure_on_are_chosen(effnet, mistake, finished, several):
    folder = several.parent / "split"
    folder.mkdir()
    shutil.copy(several, folder / "test-0.parquet")
    shutil.copy(several, folder / "dev-0.parquet")
    images = json.loads(effnet("evaluate", finished, several, "--json").out)["images"]
    twice = json.loads(effnet("evaluate", finished, folder, "--split", "test+dev", "--json").out)["images"]
    assert twice == 2 * images
    assert "has no split 'val' to train on" in mistake("evaluate", finished, folder, "--split", "val")
    assert "give DATA as well" in mistake("evaluate", finished, "--split", "test")


def test_weights_get_the_names_of_a_file(effnet, mistake, finished, photos, tmp_path):
    weights = load_weights(str(finished / "checkpoints/best.safetensors"))
    told = {"class_names": None, "preprocessing": weights.preprocessing, "provenance": ""}
    save_weights(tmp_path / "unnamed.safetensors", weights.state, weights.spec, **told)
    (tmp_path / "names.txt").write_text("Blau\nGr\u00fcn\nRot\n", encoding="utf-8")
    photo = photos / "red" / "0.jpg"
    named = effnet(
        "predict", tmp_path / "unnamed.safetensors", photo, "--class-names", tmp_path / "names.txt"
    )
    assert set(re.findall(r"(\w+) \d", named.out.partition(": ")[2])) == {"Blau", "Gr\u00fcn", "Rot"}
    assert "leave it out" in mistake("predict", finished, photo, "--class-names", tmp_path / "names.txt")

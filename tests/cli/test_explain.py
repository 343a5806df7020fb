import json

import numpy as np
import pytest
from PIL import Image

from effnet.explanation import gallery
from effnet.explanation.methods import METHODS


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def image(photos):
    return photos / "red" / "0.jpg"


def test_every_method_writes_an_overlay_and_a_sheet_has_all(effnet, finished, photos, tmp_path):
    out = tmp_path / "new" / "folder"
    images = [photos / "red" / "0.jpg", photos / "blue" / "1.png"]
    answer = effnet("explain", finished, *images, "--method", "all", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert "finished sees the middle square" in answer.out
    assert "so do the pictures" in answer.out
    overlays = {f"{stem}.finished.{method}.png" for method in METHODS for stem in ("001-0", "002-1")}
    assert {path.name for path in out.iterdir()} == overlays | {"sheet.png", "explanation.json"}
    assert all(_pixels(out / name).shape == (16, 16, 3) for name in overlays)
    height, width, _ = _pixels(out / "sheet.png").shape
    assert width > 8 * 168
    assert height > 2 * 168


def test_the_summary_says_what_was_drawn(effnet, finished, photos, image, tmp_path):
    arguments = ("--class", "true", "--method", "grad-cam,layer-cam", "--layer", "stage1", "--raw", "--json")
    answer = effnet("explain", finished, image, *arguments, "--out", tmp_path)
    document = json.loads(answer.out)
    assert document == json.loads((tmp_path / "explanation.json").read_text())
    assert document["methods"] == ["grad-cam", "layer-cam"]
    assert (document["layer"], document["class"]) == ("stage1", "true")
    (network,), (entry,) = document["networks"], document["images"]
    assert network["name"] == "finished"
    assert network["network"] == "tiny"
    assert entry["image"] == str(image)
    (found,) = entry["answers"]
    assert found["explained"] == "red"
    assert found["predicted"] in {"red", "green", "blue"}
    files = found["maps"]["layer-cam"]
    raw = np.load(tmp_path / files["raw"])
    assert raw.shape == (4, 4)
    assert raw.dtype == np.float32
    assert (tmp_path / files["overlay"]).is_file()


def test_networks_can_be_looked_at_side_by_side(effnet, finished, image, tmp_path):
    best = finished / "checkpoints" / "best.safetensors"
    answer = effnet("explain", finished, best, finished, image, "--size", "24", "--out", tmp_path)
    assert answer.code == 0
    names = [
        network["name"] for network in json.loads((tmp_path / "explanation.json").read_text())["networks"]
    ]
    assert names == ["finished", "best", "finished (2)"]
    overlays = [_pixels(tmp_path / f"001-0.{name}.cam.png") for name in ("finished", "best", "finished-2")]
    assert all(overlay.shape == (24, 24, 3) for overlay in overlays)
    assert np.array_equal(overlays[0], overlays[1])


def test_maps_can_be_checked(effnet, finished, photos, tmp_path):
    arguments = ("--method", "cam,grad-cam,occlusion", "--check", "--out", tmp_path)
    answer = effnet("explain", finished, photos / "red", *arguments)
    assert answer.code == 0
    assert "deletion should be small, insertion large" in answer.out
    (network,) = json.loads((tmp_path / "explanation.json").read_text())["networks"]
    assert network["check"].keys() == {"cam", "grad-cam", "occlusion"}
    assert network["check"]["cam"]["images"] == 6
    assert network["check"]["cam"]["deletion"] == pytest.approx(
        network["check"]["grad-cam"]["deletion"], abs=1e-3
    )


def test_a_bad_image_is_reported_and_the_others_are_explained(effnet, finished, image, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    answer = effnet("explain", finished, bad, image, "--out", tmp_path / "out")
    assert answer.code == 0
    assert answer.err == f"{bad}: not an image of a known format\n"
    document = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert document["images"][0] == {"image": str(bad), "error": "not an image of a known format"}
    assert (tmp_path / "out" / "002-0.finished.cam.png").is_file()
    alone = effnet("explain", finished, bad, "--out", tmp_path / "none")
    assert alone.code == 2
    assert "none of the images could be read" in alone.err


def test_many_images_fill_several_sheets(effnet, finished, photos, tmp_path):
    answer = effnet("explain", finished, photos, "--out", tmp_path)
    assert "sheet.png" in answer.out
    assert (tmp_path / "sheet-2.png").is_file()
    assert not (tmp_path / "sheet-3.png").exists()


def test_sheets_have_the_first_images_only(effnet, finished, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_SHEETS", 1)
    effnet("explain", finished, finished, photos, "--out", tmp_path)
    assert (tmp_path / "sheet.png").is_file()
    assert not (tmp_path / "sheet-2.png").exists()
    assert len(list(tmp_path.glob("*.finished*.cam.png"))) == 2 * 18
    assert len(json.loads((tmp_path / "explanation.json").read_text())["images"]) == 18


def test_mistakes_are_told(mistake, finished, photos, image, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "did you mean 'layer-cam'" in mistake("explain", finished, image, "--method", "layercam", *out)
    assert "tiny has no layer 'stage2'; did you mean 'stage1'" in mistake(
        "explain", finished, image, "--method", "grad-cam", "--layer", "stage2", *out
    )
    assert "cam weighs 'head'" in mistake("explain", finished, image, "--layer", "stage1", *out)
    assert "no class 'rde'; did you mean 'red'" in mistake("explain", finished, image, "--class", "rde", *out)
    assert "there are no images to explain behind" in mistake("explain", finished, *out)
    assert "there are no images to explain behind" in mistake("explain", finished, finished, *out)
    assert "does not exist; give image files or folders" in mistake(
        "explain", finished, tmp_path / "x.jpg", *out
    )
    (tmp_path / "file").touch()
    assert "--out must be a folder" in mistake("explain", finished, image, "--out", tmp_path / "file")

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.arch import Preprocessing
from effnet.data.bad_images import BadImage
from effnet.data.images import LabelledImages
from effnet.errors import UserError
from effnet.evaluation.predictor import Predictor
from effnet.explanation import heat_maps
from effnet.explanation.explaining import explain_images
from effnet.explanation.gallery import file_name, unique_names, view_of
from effnet.explanation.images import images_of_files, some_of_each_class
from effnet.explanation.methods import METHODS, Effort

NAMES = ("grey", "red", "blue")
EFFORT = Effort(window_share=0.25, stride_share=0.25, steps=4)


@pytest.fixture
def predictor(spotter) -> Predictor:
    return Predictor(spotter, NAMES, Preprocessing(image_size=32, crop_fraction=0.5))


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """A red and a blue square on grey, both in the middle, and a file that is no image."""
    pixels = np.full((64, 64, 3), 127, np.uint8)
    found = []
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        pixels[28:36, 28:36] = color
        found.append(tmp_path / name / "square.png")
        found[-1].parent.mkdir()
        Image.fromarray(pixels).save(found[-1])
    bad = tmp_path / "red" / "bad.png"
    bad.write_bytes(b"nothing")
    return [found[0], bad, found[1]]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_images_are_explained_in_order_and_bad_ones_told_in_their_place(predictor, paths, batch_size):
    first, bad, last = explain_images(predictor, images_of_files(paths), ("cam",), batch_size=batch_size)
    assert isinstance(bad, BadImage)
    assert bad.name == str(paths[1])
    assert (first.image, last.image) == (str(paths[0]), str(paths[2]))
    assert (first.predicted, last.predicted) == ("red", "blue")
    assert first.explained == "red"
    assert first.predicted_probability == first.explained_probability > 0.5


def test_maps_are_of_what_the_network_sees(predictor, paths):
    (one,) = explain_images(predictor, images_of_files(paths[:1]), METHODS, effort=EFFORT)
    # The middle half of 64 px: the square is at 12 to 20 of 32.
    assert one.view.shape == (32, 32, 3)
    assert one.view[16, 16].tolist() == [255, 0, 0]
    assert one.view[4, 4].tolist() == [127, 127, 127]
    pixels = torch.from_numpy(one.view).permute(2, 0, 1)[None].float() / 127.5 - 1
    for method in METHODS:
        expected = heat_maps(predictor.model, pixels, torch.tensor([1]), method, effort=EFFORT)[0]
        np.testing.assert_allclose(one.maps[method], expected, atol=1e-4)
    assert one.raw_maps["cam"].shape == (8, 8)
    assert one.raw_maps["cam"].min() < one.maps["cam"].min() == 0
    assert one.matches == {}


def test_any_class_can_be_explained(predictor, paths):
    about = {
        name: [
            one.explained
            for one in explain_images(predictor, images_of_files(paths[::2]), ("cam",), about=name)
        ]
        for name in ("predicted", "true", "grey")
    }
    assert about == {"predicted": ["red", "blue"], "true": ["red", "blue"], "grey": ["grey", "grey"]}
    (one,) = explain_images(predictor, images_of_files(paths[:1]), ("cam",), about="blue")
    assert (one.predicted, one.explained) == ("red", "blue")
    assert one.explained_probability < one.predicted_probability


def test_classes_that_are_not_there_are_told(predictor, paths, tmp_path):
    with pytest.raises(UserError, match="the network has no class 'rad'; did you mean 'red'"):
        list(explain_images(predictor, images_of_files(paths), ("cam",), about="rad"))
    lost = tmp_path / "elsewhere" / "a.png"
    with pytest.raises(
        UserError, match="is in none that is called like one of the network's 3 classes; give"
    ):
        list(explain_images(predictor, images_of_files([lost]), ("cam",), about="true"))


def test_exported_files_have_nothing_to_look_into(paths):
    predictor = Predictor(lambda pixels: pixels.mean((2, 3)), NAMES, Preprocessing(image_size=32))
    with pytest.raises(UserError, match="an exported file gives answers only, not the layers and gradients"):
        list(explain_images(predictor, images_of_files(paths), ("cam",)))


def test_the_game_is_played_with_every_map(predictor, paths):
    for one in explain_images(
        predictor, images_of_files(paths[::2]), ("cam", "occlusion"), check=True, effort=EFFORT
    ):
        assert one.matches.keys() == {"cam", "occlusion"}
        cam = one.matches["cam"]
        assert cam.own.deletion < cam.random.deletion
        assert cam.own.insertion > cam.random.insertion


def test_networks_have_names_of_their_own(tmp_path):
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "b.safetensors").touch()
    names = unique_names([str(tmp_path / "a" / "run"), str(tmp_path / "b.safetensors"), "other/run", "x/run"])
    assert names == ("run", "b", "run (2)", "run (3)")
    assert file_name("run (2)") == "run-2"
    assert file_name("hübsch/../x y") == "hübsch-..-x-y"
    assert file_name("***") == "image"


def test_the_view_is_described():
    squash = Preprocessing(image_size=384, crop_mode="squash")
    assert view_of(squash) == "the whole image, resized to 384 x 384 px"
    assert view_of(Preprocessing(image_size=224, crop_fraction=0.875)) == (
        "the middle square, 87.5% of the short side, resized to 224 x 224 px"
    )


def test_labelled_images_come_in_turns_of_the_classes(predictor, paths):
    labelled = LabelledImages(
        class_names=("blue", "red"),
        labels=np.array([1, 1, 0, 1, 0]),
        names=("a/r1.png", "r2", "b1", "r3", "b2"),
        read=lambda index: paths[0 if index in {0, 1, 3} else 2].read_bytes(),
    )
    chosen = some_of_each_class(labelled, 4)
    assert [image.name for image in chosen] == ["b1", "a/r1.png", "b2", "r2"]
    assert chosen[1].short_name == "r1.png"
    assert len(some_of_each_class(labelled, 99)) == 5
    explained = explain_images(predictor, chosen, ("cam",), about="true")
    assert [(one.explained, one.predicted) for one in explained] == [("blue",) * 2, ("red",) * 2] * 2

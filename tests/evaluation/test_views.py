from dataclasses import replace

import pytest
import torch

from effnet.arch.preprocessing import Preprocessing
from effnet.evaluation.views import answer_views, seen_whole

NAMES = ("red", "green", "blue")


def seen(images, views, side):
    """Return what a network sees of some images, view by view."""
    views_seen = []

    def model(view):
        views_seen.append(view.clone())
        return torch.zeros(len(view), 3)

    answer_views(model, views, image_size=side, output="softmax")(images)
    return views_seen


@pytest.mark.parametrize("views", ["flip", "ten-crop"])
def test_a_mirrored_image_has_the_same_answer(make_network, views):
    model = make_network(NAMES)
    images = torch.rand(4, 3, 10, 10) * 2 - 1
    side = 10 if views == "flip" else 8
    answer = answer_views(model, views, image_size=side, output="softmax")
    with torch.no_grad():
        torch.testing.assert_close(answer(images), answer(images.flip(-1)), rtol=1e-4, atol=1e-5)
        plain = answer_views(model, "one", image_size=10, output="softmax")
        assert not torch.allclose(plain(images), plain(images.flip(-1)), atol=1e-4)


@pytest.mark.parametrize(("views", "count"), [("one", 1), ("flip", 2), ("five-crop", 5), ("ten-crop", 10)])
def test_views_are_corners_centre_and_mirror_images(views, count):
    side = 4 if views in ("one", "flip") else 2
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = seen(images, views, side)
    assert len(found) == count
    assert all(view.shape == (1, 1, side, side) for view in found)
    first_pixels = {view[0, 0, 0, 0].item() for view in found}
    expected = {
        "one": {0}, "flip": {0, 3}, "five-crop": {0, 2, 8, 10, 5},
        "ten-crop": {0, 2, 8, 10, 5, 1, 3, 9, 11, 6}
    }[views]  # fmt: skip
    assert first_pixels == expected


def test_the_answer_is_the_mean_probability_of_the_views():
    answer = answer_views(
        lambda view: torch.stack([view.mean((1, 2, 3)), view[:, 0, 0, 0]], dim=1),
        "flip",
        image_size=2,
        output="softmax",
    )
    image = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]]]])
    expected = (torch.tensor([1.0, 3.0]).softmax(0) + torch.tensor([1.0, 1.0]).softmax(0)) / 2
    torch.testing.assert_close(answer(image).softmax(1)[0], expected)


def test_objects_keep_their_size_where_views_are_cut():
    usual = Preprocessing(image_size=224, crop_fraction=0.875)
    assert seen_whole(usual, "one") == seen_whole(usual, "flip") == usual
    assert seen_whole(usual, "five-crop") == replace(usual, image_size=256, crop_fraction=1.0)
    whole = Preprocessing(image_size=224)
    assert seen_whole(whole, "ten-crop").image_size == 256
    squashed = Preprocessing(image_size=384, crop_mode="squash", crop_fraction=0.5)
    assert seen_whole(squashed, "five-crop") == replace(squashed, image_size=439, crop_fraction=1.0)

import numpy as np
import pytest

from effnet.explanation import overlay


def test_heat_colours_an_image_from_blue_to_red():
    heat = np.linspace(0, 1, 101, dtype=np.float32)[None]
    grey = np.full((1, 101, 3), 128, np.uint8)
    coloured = overlay(grey, heat).astype(int)
    assert coloured.shape == (1, 101, 3)
    red, _, blue = np.moveaxis(coloured, -1, 0)
    assert red[0, -10] > blue[0, -10] + 50
    assert blue[0, 20] > red[0, 20] + 20
    green = coloured[0, 50]
    assert green.argmax() == 1


@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_the_image_shines_through(heat):
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2:] = 255
    laid = overlay(image, np.full((2, 4), heat, np.float32)).astype(int)
    assert (laid[:, 2:] - laid[:, :2] >= 80).all()
    assert image[:, 2:].min() == 255

import numpy as np
from PIL import Image

from effnet.explanation.sheet import Cell, draw_sheet


def _plain(value: int, side: int) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_pictures_lie_in_rows_and_columns(tmp_path):
    colors = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 0)], [(0, 250, 250), (250, 0, 250)]]
    rows = [
        [Cell(picture=np.full((40, 40, 3), color, np.uint8), lines=("one", "two")) for color in row]
        for row in colors
    ]
    draw_sheet([("left",), ("right", "below")], rows, tmp_path / "sheet.png", side=60)
    with Image.open(tmp_path / "sheet.png") as sheet:
        drawn = np.asarray(sheet.convert("RGB"))
    for row in colors:
        for color in row:
            ys, xs = np.nonzero((drawn == color).all(2))
            assert len(ys) == 3600
            assert (np.ptp(ys), np.ptp(xs)) == (59, 59)
    lefts = [np.nonzero((drawn == color).all(2))[1].min() for color in colors[0]]
    assert lefts == [16, 86]
    tops = [np.nonzero((drawn == row[0]).all(2))[0].min() for row in colors]
    assert tops[1] - tops[0] == tops[2] - tops[1] > 60


def test_long_names_and_mathematics_are_no_trouble(tmp_path):
    cell = Cell(picture=_plain(90, 8), lines=("$x_{" + "long" * 40, "100 %"))
    draw_sheet([("$\\title",)], [[cell]], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 200

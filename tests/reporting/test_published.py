"""The table of published networks against the notes from which it was made."""

import re
from pathlib import Path

import pytest

from effnet.arch import network, network_cost
from effnet.reporting.published import PUBLISHED, SMALL, V1, V2, V2_21K, measurable

FACTS = Path(__file__).parents[3] / "shared" / "reference" / "facts.md"
SERIES = {
    "B3/B4/B5/B6/B7": [(V1, f"B{index}") for index in range(3, 8)],
    "NFNet-F0..F4": [("NFNet", f"NFNet-F{index}") for index in range(5)],
    "RegNetY-8/16GF": [("RegNetY", "RegNetY-8GF"), ("RegNetY", "RegNetY-16GF")],
    "ResNeSt-101/200/269": [("ResNeSt", f"ResNeSt-{depth}") for depth in (101, 200, 269)],
    "ViT-L/16(21k)": [("ViT, ImageNet-21k", "ViT-L/16 (21k)")],
    "**V2-S/M/L**": [(V2, f"V2-{size}") for size in "SML"],
    "**V2-S/M/L(21k)**": [(V2_21K, f"V2-{size} (21k)") for size in "SML"],
    "**V2-XL(21k)** (v3)": [(V2_21K, "V2-XL (21k)")],
}


@pytest.fixture(scope="module")
def notes() -> str:
    if not FACTS.is_file():
        pytest.skip("the notes ../shared/reference/facts.md are not here")
    return FACTS.read_text(encoding="utf-8")


def _point(series: str, name: str):
    (point,) = (point for point in PUBLISHED if (point.series, point.name) == (series, name))
    return point


def _numbers(cell: str) -> list[float]:
    """Return the numbers of a cell as ``12/19/30M``; of several versions of the paper, the last."""
    cell = cell.partition("[mem]")[0]
    if "v3 " in cell:
        cell = cell.rpartition("v3 ")[2]
    return [float(number) for number in re.findall(r"\d*\.?\d+", cell)]


@pytest.mark.parametrize("line", SERIES)
def test_table_7_is_as_noted(notes, line):
    table = notes[notes.index("T7 (Infer ms") : notes.index("T8 transfer")]
    (found,) = (text for text in table.splitlines() if text.startswith(f"|{line}|"))
    cells = [_numbers(cell) for cell in found.removeprefix(f"|{line}|").split("|")[:5]]
    points = [_point(*key) for key in SERIES[line]]
    assert cells[0] == [point.top1 for point in points]
    for cell, key in zip(cells[1:], ("params", "macs", "latency", "training"), strict=True):
        values = [getattr(point, key) for point in points]
        if cell or "21k" not in line:  # Parameters of the networks that were pretrained are not repeated.
            assert values == (cell or [None] * len(points)), key


def test_pretraining_does_not_change_what_a_network_costs():
    for size in "SML":
        small, large = _point(V2, f"V2-{size}"), _point(V2_21K, f"V2-{size} (21k)")
        assert (small.params, small.macs, small.network) == (large.params, large.macs, large.network)


def test_the_small_networks_are_as_noted(notes):
    released = notes[notes.index("## 3.1") : notes.index("## 3.2")]
    for index in range(4):
        name = f"V2-B{index}"
        (cells,) = re.findall(rf"^\|{name}\|([\d.]+)\|([\d.]+)M\|([\d.]+)B\|", released, re.MULTILINE)
        point = _point(V2, name)
        assert (point.top1, point.params, point.macs) == tuple(map(float, cells))
    (accuracies,) = re.findall(r"^\|AutoAugment\|([\d.|]+)", notes, re.MULTILINE)
    (costs,) = re.findall(r"Params/FLOPs col\.: (.*)\.$", notes, re.MULTILINE)
    for index in range(3):
        point = _point(V1, f"B{index}")
        assert point.top1 == float(accuracies.split("|")[index])
        assert [point.params, point.macs] == _numbers(costs.split(", ")[index])


def test_the_point_of_table_1_is_as_noted(notes):
    assert "ResNet-RS-420 84.4 192M 128B" in notes
    assert _point("ResNet-RS", "ResNet-RS-420")[3:6] == (84.4, 192.0, 128.0)


@pytest.mark.parametrize(
    "point", [point for point in PUBLISHED if point.network], ids=lambda point: point.name
)
def test_what_was_published_is_about_what_the_network_has(point):
    cost = network_cost(network(point.network))
    assert cost.params / 1e6 == pytest.approx(point.params, rel=0.04)
    assert cost.macs / 1e9 == pytest.approx(point.macs, rel=0.07)


def test_names_are_unique_and_what_is_measured_was_published():
    assert len({(point.series, point.name) for point in PUBLISHED}) == len(PUBLISHED)
    assert set(SMALL) <= set(measurable())
    assert len(PUBLISHED) == 31

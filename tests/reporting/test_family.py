import json
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import pytest

from effnet.errors import UserError
from effnet.reporting.family import IMAGENET, Family, OwnRun, collect_family
from effnet.reporting.family_plot import plot_family
from effnet.reporting.family_table import PUBLISHED_COLUMNS, RUN_COLUMNS, markdown, published_rows, run_rows
from effnet.reporting.latency import Latency
from effnet.reporting.published import PUBLISHED

LATENCY = Latency(image_size=224, images=1, median_ms=30.0, low_ms=29.0, high_ms=31.0, passes=7)
RUN = OwnRun(
    name="one", network="v2-b0", data="flowers", is_imagenet=False, is_fine_tuned=True, top1=93.0, params=5.9,
    macs=0.72, image_size=224, minutes=6.5, machine="a laptop", latency=LATENCY,
)  # fmt: skip


def _family(*runs: OwnRun, latencies: dict[str, Latency] | None = None) -> Family:
    return Family(
        published=PUBLISHED,
        runs=runs,
        latencies=latencies or {},
        machine={"cpu_model": "a laptop"},
        latency_label="latency here",
    )


def _names(panel) -> set[str]:
    return {point.name for point in panel.points}


def test_the_paper_alone_has_four_panels():
    (panels,) = _family().rows()
    assert [panel.x_label.partition(":")[0] for panel in panels] == [
        "parameters, millions",
        "multiply-adds of an image, billions",
        "latency as published",
        "training as published",
    ]
    assert [len(panel.points) for panel in panels] == [31, 31, 22, 18]
    assert not any(point.is_own for panel in panels for point in panel.points)


def test_accuracies_on_other_images_never_share_an_axis():
    one, two = RUN, replace(RUN, name="two", data="cars")
    imagenet, flowers, cars = _family(one, two).rows()
    assert all("one" not in _names(panel) and panel.title == IMAGENET for panel in imagenet)
    assert all(_names(panel) == {"one"} and panel.title == "flowers" for panel in flowers)
    assert all(_names(panel) == {"two"} for panel in cars)


def test_times_of_other_machines_never_share_an_axis():
    own = replace(RUN, is_imagenet=True, data=IMAGENET)
    (panels,) = _family(own, latencies={"v2-s": LATENCY}).rows()
    by_label = {panel.x_label.partition(":")[0]: _names(panel) for panel in panels}
    assert "one" in by_label["parameters, millions"]
    assert "one" in by_label["multiply-adds of an image, billions"]
    assert "one" not in by_label["latency as published"] | by_label["training as published"]
    assert by_label["latency here"] == {"one", "V2-S", "V2-S (21k)"}
    assert by_label["training here"] == {"one"}


def test_runs_of_different_machines_are_told():
    (_, panels) = _family(RUN, replace(RUN, name="two", machine="a server")).rows()
    assert panels[-1].x_label == "training here: minutes, on different machines"
    (_, panels) = _family(RUN).rows()
    assert panels[-1].x_label == "training here: minutes, a laptop"


def test_what_is_not_known_is_not_drawn():
    (_, panels) = _family(replace(RUN, params=None, latency=None)).rows()
    assert [panel.x_label.partition(":")[0] for panel in panels] == [
        "multiply-adds of an image, billions",
        "training here",
    ]


def test_the_picture_can_be_opened(tmp_path):
    family = _family(RUN, replace(RUN, name="<b>&", is_fine_tuned=False), latencies={"v2-b0": LATENCY})
    plot_family(family, tmp_path / "family.png")
    pixels = cv2.imread(str(tmp_path / "family.png"))
    assert pixels.shape[0] > 500
    assert pixels.std() > 5
    plot_family(family, tmp_path / "family.svg")
    text = " ".join(ElementTree.parse(tmp_path / "family.svg").getroot().itertext())
    assert all(found in text for found in ("XL", "EfficientNetV2", "32 TPUv3 cores", "flowers", "<b>&"))


def test_equal_numbers_are_equal_pictures(tmp_path):
    for name in ("one.svg", "two.svg"):
        plot_family(_family(), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_tables_have_a_line_for_each_point():
    family = _family(RUN, replace(RUN, name="a|b", params=None, latency=None), latencies={"v2-s": LATENCY})
    assert len(published_rows(family)) == 31
    assert all(len(row) == len(PUBLISHED_COLUMNS) for row in published_rows(family))
    first, second = run_rows(family)
    assert len(first) == len(second) == len(RUN_COLUMNS)
    assert first[4:] == ("93.00 %", "5.9 M", "0.72 G", "224 px", "30.0 ms (29.0 to 31.0)", "6.5 min")
    text = markdown(family)
    assert "| a\\|b | v2-b0 |" in text
    assert (
        "| V2-S | 83.9 % | 22 M | 8.8 G | 24 ms | 7.1 h | 30.0 ms (29.0 to 31.0) | 2104.00298 table 7 |"
        in text
    )


# From real runs


def test_runs_become_points_with_what_was_measured(finished, another):
    told: list[str] = []
    family = collect_family([finished, another], measure=(), rounds=2, device="cpu", announce=told.append)
    assert len(told) == 3
    first, second = family.runs
    assert (first.network, first.image_size, first.is_fine_tuned, first.is_imagenet) == (
        "tiny",
        16,
        False,
        False,
    )
    assert first.data == second.data
    assert first.data.startswith("photos: 3 classes, ")
    assert 0 <= first.top1 <= 100
    assert first.latency is not None
    assert first.latency.passes == 2
    assert first.minutes > 0
    document = json.loads(json.dumps(family.to_dict()))
    assert [run["name"] for run in document["runs"]] == ["finished", "another"]
    assert len(document["published"]) == 31
    assert document["runs"][0]["latency"]["median_ms"] == first.latency.median_ms


def test_the_best_accuracy_is_that_of_the_weights_that_are_used(finished):
    (run,) = collect_family([finished], rounds=0).runs
    lines = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    assert run.top1 == pytest.approx(100 * max(line.get("val_top1", 0) for line in lines))
    assert run.latency is None


def test_a_run_without_accuracy_and_an_unknown_network_are_told(unfinished):
    with pytest.raises(
        UserError, match="unfinished has not been evaluated yet, so it has no accuracy to draw"
    ):
        collect_family([unfinished], rounds=0)
    with pytest.raises(UserError, match=r"'v2-xs' has no published accuracy here; did you mean 'v2-\w+'\?"):
        collect_family([], measure=("v2-xs",))

import io
import math
import zlib

import numpy as np
import pytest
from PIL import Image

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import stage_schedule
from effnet.training.plots import plot_learning_curve, plot_schedule


def curve(schedule):
    records = [
        {"step": step, "epoch": schedule.epoch(step), "loss": 1 + math.exp(-step / 30)}
        for step in range(1, 121)
    ]
    evaluations = [
        {"step": step, "epoch": schedule.epoch(step), "val_top1": step / 150, "val_loss": 1.0}
        for step in range(10, 121, 10)
    ]
    return [*records, *evaluations]


def pixels(path):
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(image, colour):
    return int((image == np.array(colour)).all(-1).sum())


def test_learning_curve_has_its_size_lines_and_shaded_stages(tmp_path, schedule):
    plot_learning_curve(curve(schedule), schedule, tmp_path / "curve.png")
    image = pixels(tmp_path / "curve.png")
    assert image.shape == (900, 1350, 3)
    assert count(image, (0x7A, 0x87, 0x94)) > 500
    assert count(image, (0x1F, 0x5F, 0xA8)) > 500
    # One of three stages is shaded, less its lines.
    assert 0.2 < count(image, (0xF0, 0xF2, 0xF5)) / image[..., 0].size < 0.4
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        [{"step": 1, "epoch": 0.1, "loss": None}],
        [{"step": 1, "epoch": 0.1, "loss": 2.0, "val_top1": 0.0}],
    ],
    ids=["empty", "diverged", "one point"],
)
def test_learning_curve_of_a_run_that_hardly_began_is_drawn(tmp_path, schedule, metrics):
    plot_learning_curve(metrics, schedule, tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").shape == (900, 1350, 3)


def test_schedule_has_its_size_and_a_panel_more_with_cutmix(tmp_path, schedule):
    rates = [(schedule.epoch(step), 0.1 / (1 + step)) for step in range(120)]
    plot_schedule(schedule, rates, tmp_path / "a.png")
    with_cutmix = stage_schedule(
        ProgressiveConfig(stages=3, cutmix_alpha=(0.0, 0.5)),
        TrainConfig(epochs=12.0, batch_size=10),
        train_images=100,
        train_size=64,
    )
    plot_schedule(with_cutmix, rates, tmp_path / "b.png")
    panels = [horizontal_axes(pixels(tmp_path / name)) for name in ("a.png", "b.png")]
    assert panels == [6, 7]
    assert pixels(tmp_path / "a.png").shape == (1350, 1350, 3)


def horizontal_axes(image):
    """Count the x axes: long dark rows, apart from each other."""
    dark = (image.astype(int).sum(-1) < 3 * 0x40).sum(1) > 0.25 * image.shape[1]
    return int((np.diff(dark.astype(int)) == 1).sum())


def test_schedule_with_nothing_switched_on_is_drawn(tmp_path):
    config = ProgressiveConfig(
        stages=1, randaugment_magnitude=(0.0, 0.0), dropout_rate=(0.0, 0.0), drop_path_rate=(0.0, 0.0)
    )
    schedule = stage_schedule(config, TrainConfig(epochs=1.0), train_images=640, train_size=64)
    plot_schedule(schedule, [(0.0, 0.0), (1.0, 0.0)], tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape == (1350, 1350, 3)


def test_a_schedule_of_many_stages_is_drawn_without_shades(tmp_path):
    config = ProgressiveConfig(mode="linear", image_size=(32, 64))
    schedule = stage_schedule(config, TrainConfig(epochs=12.0), train_images=1000, train_size=64)
    assert len(schedule.stages) == 33
    plot_schedule(schedule, [(0.0, 0.1), (12.0, 0.0)], tmp_path / "a.png")
    assert count(pixels(tmp_path / "a.png"), (0xF0, 0xF2, 0xF5)) == 0


def test_failed_plot_leaves_the_previous_one(tmp_path, schedule, monkeypatch):
    path = tmp_path / "curve.png"
    plot_learning_curve(curve(schedule), schedule, path)
    checksum = zlib.crc32(path.read_bytes())

    def write_half(_, name, **options):
        name.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", write_half)
    with pytest.raises(OSError, match="no space left"):
        plot_learning_curve([], schedule, path)
    assert zlib.crc32(path.read_bytes()) == checksum
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.png"]

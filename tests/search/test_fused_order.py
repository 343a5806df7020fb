"""V2's table 3 on a made-up device."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import NetworkSpec, StageSpec
from effnet.config import Config, DataConfig, ProgressiveConfig, TrainConfig
from effnet.search import fused_order
from effnet.search.fused_order import fastest_first, measure_fused
from effnet.search.step_time import StepTime
from effnet.search.turns import Budget
from effnet.training.unread import prepare_unread

_STAGE = StageSpec(
    operation="mbconv", kernel_size=3, stride=1, expand_ratio=2, channels=8, repeats=1, se_ratio=0.25
)
PLAIN = NetworkSpec(
    name="plain", stages=(_STAGE,) * 7, stem_channels=8, head_channels=8, image_size=8, train_size=8
)


@pytest.fixture
def rows(monkeypatch):
    """A step of the plain network takes 10 ms and 1 ms an image.

    One with stages 1 to n fused takes 10 n ms and (1 - n / 10) ms an image.
    """
    config = Config(
        data=DataConfig(source="digits", train_images=100, classes=10),
        progressive=ProgressiveConfig(stages=1, image_size=(8, 8)),
        train=TrainConfig(device="cpu"),
    )

    def step(experiment, spec, reference, budget, *, images):
        fused = sum(stage.operation == "fused_mbconv" for stage in spec.stages)
        own, plain = 10 * fused + (1 - fused / 10) * images, 10 + images
        return StepTime(
            ratio=own / plain,
            spread=0.01,
            rounds=10,
            dropped=0,
            step_ms=own,
            reference_ms=plain,
            memory_mb=1.0,
            images=images,
            image_size=8,
        )

    monkeypatch.setattr(fused_order, "measure_step", step)
    told: list[str] = []
    experiment = replace(prepare_unread(config), spec=PLAIN)
    rows = measure_fused(experiment, PLAIN, [4, 1000], Budget(), lambda row: told.append(row.name))
    assert told == [row.name for row in rows]
    return rows


def test_the_rows_are_those_of_the_paper(rows):
    assert [row.name for row in rows] == ["plain.fused1-3", "plain.fused1-5", "plain.fused1-7"]
    assert [row.params for row in rows] == sorted(row.params for row in rows)


def test_the_order_depends_on_the_images(rows):
    assert fastest_first(PLAIN, rows, 0) == ["plain", "plain.fused1-3", "plain.fused1-5", "plain.fused1-7"]
    assert fastest_first(PLAIN, rows, 1) == ["plain.fused1-7", "plain.fused1-5", "plain.fused1-3", "plain"]


def test_the_growth_is_that_of_a_further_image(rows):
    assert [row.growth for row in rows] == pytest.approx([0.7, 0.5, 0.3])

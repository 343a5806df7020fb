"""Few stages for many."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.schedule.condense import MOST_STAGES, condensed, pixels
from effnet.schedule.progressive import stage_schedule


def lay_out(*, epochs=40.0, train_images=100, seed=0, **settings):
    train = TrainConfig(epochs=epochs, batch_size=10, seed=seed)
    return stage_schedule(ProgressiveConfig(**settings), train, train_images=train_images, train_size=64)


def test_few_stages_stay_as_they_are():
    schedule = lay_out(stages=3, image_size=(32, 64))
    assert condensed(schedule) is schedule


def test_many_sizes_become_eight_and_keep_their_steps():
    schedule = lay_out(mode="linear", image_size=(32, 64), mixup_alpha=(0.0, 0.2))
    short = condensed(schedule)
    assert [stage.image_size for stage in short.stages] == [32, 37, 42, 46, 51, 55, 60, 64]
    assert short.total_steps == schedule.total_steps == 400
    assert short.stages[-1].mixup_alpha == 0.2
    # 32 alone, then the sizes up to each.
    assert short.stages[0].steps == schedule.stages[0].steps
    assert short.stages[1].steps == sum(stage.steps for stage in schedule.stages[1:6])


@given(
    mode=st.sampled_from(["linear", "random", "staged"]),
    batch_rule=st.sampled_from(["constant", "pixels"]),
    stages=st.integers(1, 30),
    epochs=st.floats(0.1, 50),
    size_multiple=st.sampled_from([1, 8]),
    seed=st.integers(0, 9),
)
def test_any_schedule_becomes_a_short_one_of_the_same_length(**run):
    schedule = lay_out(image_size=(8, 64), redraw_epochs=1.0, **run)
    short = condensed(schedule)
    assert len(short.stages) <= MOST_STAGES
    assert short.total_steps == schedule.total_steps
    assert [stage.stage for stage in short.stages] == list(range(len(short.stages)))
    for before, stage in pairwise(short.stages):
        assert before.end_step == stage.start_step
    largest = [max(pixels(stage) for stage in each.stages if stage.steps) for each in (schedule, short)]
    assert largest[0] == largest[1]

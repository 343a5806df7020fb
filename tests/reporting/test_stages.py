import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.reporting.stages import MOST_ROWS, stage_times
from effnet.schedule.progressive import stage_schedule


def schedule(stages, epochs=4.0):
    return stage_schedule(
        ProgressiveConfig(stages=stages, image_size=(16, 64)),
        TrainConfig(epochs=epochs, batch_size=8),
        train_images=80,
        train_size=64,
    )


def training(step, stage, seconds, *, wait=0.0, loss=1.0):
    return {
        "step": step,
        "stage": stage,
        "seconds": seconds,
        "loss": loss,
        "images_per_second": 1.0,
        "data_wait": wait,
    }


def evaluation(step, stage, seconds, top1=0.5):
    return {"step": step, "stage": stage, "seconds": seconds, "val_top1": top1, "val_loss": 1.0}


JOURNAL = [
    training(10, 0, 4.0, wait=0.5),
    training(20, 0, 6.0, wait=0.25, loss=0.9),
    evaluation(20, 0, 7.0, top1=0.4),
    training(30, 1, 17.0, wait=0.1),
    training(40, 1, 27.0, loss=0.7),
    evaluation(40, 1, 30.0, top1=0.8),
]


def test_time_is_that_since_the_record_before():
    first, second = stage_times(JOURNAL, schedule(2))
    assert (first.step_seconds, first.evaluation_seconds) == (6.0, 1.0)
    assert (second.step_seconds, second.evaluation_seconds) == (20.0, 3.0)
    assert first.wait_seconds == pytest.approx(4.0 * 0.5 + 2.0 * 0.25)
    assert first.data_wait == pytest.approx(2.5 / 6.0)
    assert first.images == second.images == 160
    assert second.images_per_second == pytest.approx(160 / 20.0)
    assert (first.loss, first.val_top1, second.loss, second.val_top1) == (0.9, 0.4, 0.7, 0.8)
    assert (first.sizes, second.sizes) == ((16, 16), (64, 64))
    assert (first.epochs, second.epochs) == ((0.0, 2.0), (2.0, 4.0))


def test_a_stage_that_goes_on_counts_what_is_done():
    first, second = stage_times(JOURNAL[:4], schedule(2))
    assert (first.steps, first.planned_steps) == (20, 20)
    assert (second.steps, second.planned_steps) == (10, 20)
    assert second.images == 80
    assert second.val_top1 is None


def test_a_stage_without_a_record_has_no_speed():
    _, second = stage_times(JOURNAL[:3], schedule(2))
    assert (second.steps, second.images_per_second, second.data_wait, second.loss) == (0, None, None, None)
    assert [one.steps for one in stage_times([], schedule(2))] == [0, 0]


def test_many_stages_share_rows():
    rows = stage_times([training(40, 39, 80.0)], schedule(40))
    assert len(rows) <= MOST_ROWS
    assert [rows[0].first, rows[-1].last] == [1, 40]
    assert all(before.last + 1 == after.first for before, after in itertools.pairwise(rows))
    assert sum(row.steps for row in rows) == 40
    assert rows[0].sizes[0] < rows[0].sizes[1]


def test_records_about_other_things_do_not_count():
    notes = [{"step": 20, "compiled": {}}, {"step": 20, "processes": 2, "processes_before": 1}]
    assert stage_times([*JOURNAL[:3], *notes, *JOURNAL[3:]], schedule(2)) == stage_times(JOURNAL, schedule(2))


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=30))
def test_no_time_is_lost_or_counted_twice(parts):
    records, now = [], 0.0
    for number, (seconds, is_training) in enumerate(parts, start=1):
        now += seconds
        step = min(number, 40)
        record = training if is_training else evaluation
        records.append(record(step, min((step - 1) // 20, 1), now))
    rows = stage_times(records, schedule(2))
    assert sum(row.step_seconds + row.evaluation_seconds for row in rows) == pytest.approx(now)

import io
from dataclasses import replace

import pytest
from rich.console import Console

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import stage_schedule
from effnet.training.display import Display, StepReport, open_display, seconds_left

EVALUATION = {"step": 20, "epoch": 2.0, "val_top1": 0.125, "val_loss": 2.5}


def report(step, **changes):
    values = {
        "step": step,
        "epoch": step / 10,
        "loss": 1.5,
        "learning_rate": 0.0125,
        "images_per_second": 100.0,
        "data_wait": 0.02,
        "seconds_per_step": 0.1,
    }
    return StepReport(**(values | changes))


def shown(display):
    console = Console(file=io.StringIO(), width=120)
    console.print(display.panel())
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("step", "measured", "seconds"),
    [
        (0, {}, None),
        (0, {0: 1.0}, 40 * 1.0 + 40 * 2.25 + 40 * 4.0),
        (30, {0: 1.0}, 10 * 1.0 + 40 * 2.25 + 40 * 4.0),
        (60, {0: 1.0, 1: 4.5}, 20 * 4.5 + 40 * 4.5 * 64**2 / 48**2),
        (40, {0: 1.0}, 40 * 2.25 + 40 * 4.0),
        (120, {2: 5.0}, 0.0),
    ],
)
def test_time_left_scales_with_the_pixels_of_a_batch(schedule, step, measured, seconds):
    assert seconds_left(schedule, step, measured) == pytest.approx(seconds)


def test_time_left_with_constant_pixels_a_batch_is_the_same_for_each_step():
    progressive = ProgressiveConfig(stages=2, image_size=(32, 64), batch_rule="pixels")
    schedule = stage_schedule(
        progressive, TrainConfig(epochs=8.0, batch_size=16), train_images=160, train_size=64
    )
    first, second = schedule.stages
    assert (first.batch_size, second.batch_size) == (64, 16)
    assert seconds_left(schedule, 0, {0: 2.0}) == 2.0 * schedule.total_steps


def test_panel_shows_stage_progress_and_time_left(schedule):
    display = Display(schedule, Console(file=io.StringIO()))
    display.stage(schedule.stages[1])
    display.evaluated(EVALUATION)
    display.step(report(60))
    text = shown(display)
    for part in [
        "stage 2/3",
        "48 px, batch 10, RandAugment 7.5, mixup 0.1, cutmix 0, dropout 0.2, drop-path 0.2",
        "step 60/120, 9 s left",
        "epoch 6.00",
        "loss 1.500",
        "learning rate 0.0125",
        "100 images/s",
        "data wait 2%",
        "best val top-1 12.50%",
    ]:
        assert part in text
    assert "data.workers" not in text


def test_erasing_is_named_where_there_is_any(schedule):
    display = Display(schedule, Console(file=io.StringIO()))
    display.stage(replace(schedule.stages[1], erasing_probability=0.125))
    assert "cutmix 0, erasing 0.125, dropout 0.2" in shown(display)


def test_panel_is_complete_before_the_first_report(schedule):
    text = shown(Display(schedule, Console(file=io.StringIO())))
    assert "step 0/120, time left unknown" in text


def test_long_waits_for_images_bring_advice_while_they_last(schedule):
    lines = Console(file=io.StringIO())
    display = Display(schedule, lines, advice="read faster")
    for step in range(5):
        display.step(report(step, data_wait=0.11))
    assert "waits for images 11% of the time: read faster" in shown(display)
    display.step(report(6, data_wait=0.1))
    assert "read faster" not in shown(display)
    assert lines.file.getvalue() == ""


def test_without_a_panel_the_advice_is_one_line_once_waits_have_lasted(schedule, capsys):
    with open_display(schedule, quiet=False, advice="read faster") as display:
        for step, wait in enumerate([0.9, 0.5, 0.1, 0.2, 0.3]):
            display.step(report(step, data_wait=wait))
        assert capsys.readouterr().err == ""
        for step in range(5, 15):
            display.step(report(step, data_wait=0.4))
    assert capsys.readouterr().err == "waits for images 40% of the time: read faster\n"


def test_best_accuracy_survives_a_worse_one(schedule):
    display = Display(schedule, Console(file=io.StringIO()))
    display.step(report(1))
    display.evaluated(EVALUATION | {"val_top1": 0.75})
    display.evaluated(EVALUATION | {"val_top1": 0.5})
    assert "best val top-1 75.00%" in shown(display)


def test_without_a_terminal_there_is_one_line_a_stage_and_an_evaluation(schedule, capsys):
    with open_display(schedule, quiet=False) as display:
        display.stage(schedule.stages[0])
        for step in range(1, 21):
            display.step(report(step))
        display.evaluated(EVALUATION)
        display.message("skipped [a].jpg")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "stage 1/3: 32 px, batch 10, RandAugment 5, mixup 0, cutmix 0, dropout 0.1, drop-path 0.2, "
        "steps 0 to 40 of 120",
        "step 20/120, epoch 2.0, val top-1 12.50%, val loss 2.500, train loss 1.500, 100 images/s, "
        "data wait 2%, 27 s left",
        "skipped [a].jpg",
    ]


def test_quiet_shows_nothing(schedule, capsys):
    with open_display(schedule, quiet=True) as display:
        display.stage(schedule.stages[0])
        display.step(report(1))
        display.evaluated(EVALUATION)
        display.message("text")
    assert capsys.readouterr() == ("", "")


def test_terminal_gets_a_panel_on_stderr_and_stdout_stays_free(schedule, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with open_display(schedule, quiet=False) as display:
        display.stage(schedule.stages[0])
        display.step(report(1))
        print('{"result": 1}')
    captured = capsys.readouterr()
    assert captured.out == '{"result": 1}\n'
    assert "╭─ stage 1/3" in captured.err
    assert "step 1/120" in captured.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.4, "59 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (90_000, "1 d 1 h")],
)
def test_time_left_is_readable(schedule, seconds, text):
    display = Display(schedule, Console(file=io.StringIO()))
    display.stage(schedule.stages[2])
    display.step(report(119, seconds_per_step=float(seconds)))
    assert f"step 119/120, {text} left" in shown(display)

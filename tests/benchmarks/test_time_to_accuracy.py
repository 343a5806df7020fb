"""The pure parts of ``benchmarks/time_to_accuracy.py``; `tests/peers` has timm's part."""

import json
import threading
import time
from pathlib import Path

import pytest
import time_to_accuracy as script
import torch
from race import case, clock, composer, curves, page, races
from safetensors.torch import save_file

from effnet.errors import UserError


def run(seed, top1, wall, *, curve=(), arm="paper"):
    steps = 100
    points = [{"step": step, "wall": at, "cpu": at, "top1": value} for step, at, value in curve]
    return {
        "seed": seed,
        "arm": arm,
        "top1": top1,
        "wall": wall,
        "cpu": wall,
        "curve": points,
        "steps": steps,
    }


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, 64), (0.5, 64), (0.5 + 0.3 / 16, 68), (0.65, 96), (0.8 - 1e-9, 128), (0.8, 128), (1.0, 128)],
)
def test_composer_keeps_half_the_side_for_half_the_run_and_then_grows_it_evenly(progress, expected):
    assert composer.side(128, progress) == expected


def test_composer_s_ideal_saving_is_half_of_the_arithmetic():
    side = composer.side
    share = sum(side(224, (step + 0.5) / 1000) ** 2 for step in range(1000)) / 1000 / 224**2
    assert share == pytest.approx(0.5, abs=0.005)


def test_composer_takes_the_nearest_pixels_of_each_batch_in_turn():
    resizer = composer.Composer(8, 10)
    images = torch.arange(64.0).view(1, 1, 8, 8)
    seen = [resizer.resized(images) for _ in range(10)]
    assert [batch.shape[-1] for batch in seen] == [resizer.size(step) for step in range(10)]
    assert torch.equal(seen[0], images[..., ::2, ::2])
    assert seen[-1] is images


def test_time_and_images_are_told_by_size():
    points = [
        {"step": 0, "image_size": 64, "images": 0, "wall": 3.0, "cpu": 2.0},
        {"step": 2, "image_size": 64, "images": 16, "wall": 5.0, "cpu": 3.0},
        {"step": 3, "image_size": 128, "images": 24, "wall": 9.0, "cpu": 6.0},
        {"step": 5, "image_size": 64, "images": 40, "wall": 10.0, "cpu": 7.0},
    ]
    small, large = curves.by_size(points)
    assert small == {"image_size": 64, "wall": 3.0, "cpu": 2.0, "images": 32, "steps": 4}
    assert large == {"image_size": 128, "wall": 4.0, "cpu": 3.0, "images": 8, "steps": 1}


@pytest.mark.parametrize(("top1", "expected"), [(0.4, 10.0), (0.5, 20.0), (0.61, 30.0), (0.7, None)])
def test_an_accuracy_is_reached_where_it_was_first_seen(top1, expected):
    curve = [(10, 10.0, 0.45), (50, 20.0, 0.6), (70, 25.0, 0.55), (100, 29.0, 0.66)]
    # The end is judged by all images, not by those of the last look.
    assert curves.seconds_to(run(0, 0.65, 30.0, curve=curve), top1) == expected


def test_ratios_and_differences_are_those_of_twins():
    fixed = [run(0, 0.5, 100.0), run(1, 0.6, 200.0)]
    others = [run(1, 0.7, 50.0), run(0, 0.45, 50.0), run(2, 0.9, 1.0)]
    assert curves.ratios(others, fixed) == [0.25, 0.5]
    assert curves.differences(others, fixed) == pytest.approx([0.1, -0.05])


def test_what_is_left_out_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "_now", lambda: clock.Spent(now[0], 2 * now[0]))
    running = clock.RaceClock()
    now[0] = 3.0
    with running.stopped():
        now[0] = 10.0
    assert running.spent == (3.0, 6.0)
    before = running.spent
    now[0] = 11.0
    running.leave_out_since(before)
    now[0] = 12.0
    assert running.spent == (4.0, 8.0)


def test_the_table_has_every_arm_and_what_it_says_is_in_the_document(tmp_path):
    sizes = [{"image_size": 64, "wall": 5.0, "cpu": 5.0, "images": 10, "steps": 1}]
    runs = {}
    for arm in case.ARMS:
        for seed in range(2):
            made = run(seed, 0.5 + 0.01 * seed, 10.0 if arm.name == "fixed" else 4.0, arm=arm.name)
            runs[f"flowers {arm.name} {seed}"] = made | {
                "images": 10,
                "sizes": sizes,
                "start": {"wall": 0.5, "cpu": 0.5},
            }
    report = {"races": {"flowers": {"title": "Flowers"}}, "runs": runs}
    text = page.table(report)
    assert all(arm.label in text for arm in case.ARMS)
    assert "0.40 (0.40 to 0.40)" in text
    assert "64: 5.0 (100%)" in text
    document = tmp_path / "results.md"
    document.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    page.fill(document, text)
    assert document.read_text(encoding="utf-8") == f"before\n{page.BEGIN}\n{text}\n{page.END}\nafter\n"


def test_the_picture_is_drawn(tmp_path):
    curve = [(50, 2.0, 0.3), (100, 4.0, 0.5)]
    runs = {"flowers fixed 0": run(0, 0.5, 4.0, arm="fixed", curve=curve)}
    report = {"races": {"flowers": {"title": "Flowers"}}, "runs": runs}
    page.picture(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path):
    document = tmp_path / "results.md"
    document.write_text("nothing", encoding="utf-8")
    with pytest.raises(ValueError, match="has no place between"):
        page.fill(document, "table")
    assert document.read_text(encoding="utf-8") == "nothing"


def test_all_arms_of_a_race_differ_in_nothing_but_their_schedule(tmp_path):
    """Length, optimizer, decay, crops and the last stage's values are those of the fixed size."""
    weights = tmp_path / "weights.safetensors"
    save_file({"head.bias": torch.zeros(1)}, weights)
    for contest in races.RACES.values():
        arms = [arm for arm in case.ARMS if arm.is_in(contest)]
        configs = {
            arm.name: case.config_of(contest, arm, seed=0, data=Path("photos"), extra=[], weights=weights)
            for arm in arms
        }
        fixed = configs["fixed"]
        assert fixed.progressive.image_size == (contest.full, contest.full)
        for arm in arms:
            config = configs[arm.name]
            same = ("model", "data", "augment", "optimizer", "ema", "evaluate")
            assert all(getattr(config, part) == getattr(fixed, part) for part in same)
            assert config.train.epochs == fixed.train.epochs * arm.length
            assert config.train.early_stop_epochs == 0  # Or some would not run for as long as others.
            assert config.model.weights == (str(weights) if contest.is_pretrained else "")
            last = config.progressive.image_size[1]
            assert last == contest.full or (arm.name in {"better", "lower"} and last < contest.full)
            for name in ("randaugment_magnitude", "mixup_alpha", "dropout_rate", "drop_path_rate"):
                assert getattr(config.progressive, name)[1] == getattr(fixed.progressive, name)[1]


def test_a_quick_race_keeps_the_network_that_its_weights_fit(tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file({"head.bias": torch.zeros(1)}, weights)
    widths = {}
    for name, contest in races.RACES.items():
        quick = races.quickened(contest)
        config = case.config_of(quick, case.ARMS[0], seed=0, data=Path("photos"), extra=[], weights=weights)
        assert config.train.epochs == 1
        widths[name] = (config.model.width, config.model.depth)
    assert widths.pop("flowers-finetuned") == (1.0, 1.0)
    assert set(widths.values()) == {(0.25, 0.25)}


def test_a_pretrained_race_asks_for_its_weights():
    contest, arm = races.RACES["flowers-finetuned"], case.ARMS[0]
    with pytest.raises(UserError, match="name a file by --weights"):
        case.config_of(contest, arm, seed=0, data=Path("photos"), extra=[])


def test_runs_that_are_done_are_not_done_again(tmp_path):
    arguments = script.parsed([str(tmp_path), "--races", "flowers", "--arms", "fixed,timm", "--seeds", "2"])
    left = script.jobs(arguments, {"flowers fixed 0": {}})
    assert [script.key(**job) for job in left] == ["flowers timm 0", "flowers fixed 1", "flowers timm 1"]
    assert json.dumps(left)


def test_what_is_stopped_leaves_no_run_behind(tmp_path, monkeypatch):
    (tmp_path / "race").mkdir()
    (tmp_path / "race" / "worker.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(script, "HERE", tmp_path)
    arguments = script.parsed(
        [str(tmp_path), "--races", "flowers", "--work", str(tmp_path), "--cores", "any,any"]
    )
    lanes = script.Lanes(arguments, {"runs": {}}, {"flowers": {"data": "photos"}})
    running = threading.Thread(target=lanes.run)
    running.start()
    while len(lanes._children) < 2:
        time.sleep(0.01)
    children = list(lanes._children)
    lanes.stop()
    running.join(30)
    assert not running.is_alive()
    assert all(child.returncode for child in children)
    assert "flowers-fixed-0 failed" in " ".join(lanes.failures)
    assert lanes.failures[0] == "stopped; the same command goes on with the runs that are left"


def test_weights_are_asked_for_before_anything_is_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.parsed([str(tmp_path)])
    assert (
        "flowers-finetuned starts from trained weights; name a file by --weights" in capsys.readouterr().err
    )
    weights = ["--weights", str(tmp_path / "weights.safetensors")]
    assert script.parsed([str(tmp_path), *weights]).weights == tmp_path / "weights.safetensors"

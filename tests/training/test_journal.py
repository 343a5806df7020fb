import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from effnet.errors import UserError
from effnet.training.journal import Journal, Run, create_run, default_run_path, open_run, read_metrics


def test_new_run_holds_its_configuration_and_environment(tmp_path):
    run = create_run(tmp_path / "runs" / "a", "[train]\nseed = 1\n")
    assert run.config_path.read_text() == "[train]\nseed = 1\n"
    assert {entry.name for entry in run.path.iterdir()} == {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "plots",
    }
    environment = json.loads(run.environment_path.read_text())
    assert environment["torch"] == torch.__version__
    assert environment["cpu_count"] >= 1
    assert environment["cpu_model"]
    assert {
        "effnet",
        "python",
        "platform",
        "devices",
        "git_commit",
        "command",
        "started",
    } < environment.keys()
    assert run.journal.read() == []


def test_second_run_in_a_folder_is_refused(tmp_path):
    create_run(tmp_path / "a", "first")
    with pytest.raises(UserError, match=r"already holds a run: continue it with .*--resume .*choose .*--out"):
        create_run(tmp_path / "a", "second")
    assert (tmp_path / "a" / "config.toml").read_text() == "first"


def test_run_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("notes")
    with pytest.raises(UserError, match="is no folder; choose another one with --out"):
        create_run(tmp_path / "a", "")


def test_existing_run_is_opened(tmp_path):
    create_run(tmp_path / "a", "text")
    assert open_run(tmp_path / "a").config_path.read_text() == "text"


@pytest.mark.parametrize(
    ("given", "hint"),
    [("first-rum", r"did you mean 'first-run'\?"), (".", "it contains the runs first-run, other")],
)
def test_missing_run_is_answered_with_the_nearest(tmp_path, given, hint):
    create_run(tmp_path / "first-run", "")
    create_run(tmp_path / "other", "")
    with pytest.raises(UserError, match=rf"holds no run \(it has no config.toml\); {hint}"):
        open_run(tmp_path / given)


@pytest.mark.parametrize(
    ("model", "stem"),
    [("v2-b0", "v2-b0"), ("specs/my net.json", "my-net"), ("v1-b0.fused1-3", "v1-b0.fused1-3")],
)
def test_default_path_has_date_time_and_network(model, stem):
    path = default_run_path(model)
    assert path.parent.name == "runs"
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d-\d{{6}}-{re.escape(stem)}", path.name)


def test_numbers_that_are_not_finite_become_null(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.write({"step": 1, "loss": math.nan, "rate": math.inf, "name": "a"})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": null, "rate": null, "name": "a"}\n'
    )


def test_killed_and_resumed_journal_reads_as_one_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    for step in range(1, 7):
        journal.write({"step": step, "session": 1})
    with path.open("a") as file:
        file.write('{"step": 7, "sess')
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4, 5, 6]

    resumed = Journal(path)
    resumed.truncate_after(4)
    resumed.write({"step": 5, "session": 2})
    records = read_metrics(path)
    assert [(record["step"], record["session"]) for record in records] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (5, 2),
    ]


def test_half_written_line_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    Journal(path).write({"step": 2})
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_reading_does_not_touch_the_file_of_a_run_in_progress(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert Journal(path).read() == [{"step": 1}]
    assert path.read_text().endswith('{"st')


def test_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nstep 2\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"line 2 of .*metrics.jsonl is no JSON object"):
        read_metrics(path)


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no file of metrics"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_bad_images_are_noted_once_over_all_sessions_and_threads(tmp_path):
    run = create_run(tmp_path / "a", "")
    names = [f"image-{index % 20}.jpg" for index in range(400)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: run.report_bad_image(name, "truncated"), names))
    resumed = Run(run.path)
    assert run.bad_image_count == resumed.bad_image_count == 20
    resumed.report_bad_image("image-3.jpg", "truncated")
    resumed.report_bad_image("new.jpg", "no image")
    assert resumed.bad_image_count == 21
    noted = read_metrics(run.path / "bad-images.jsonl")
    assert sorted(record["name"] for record in noted) == sorted({*names, "new.jpg"})
    assert noted[-1] == {"name": "new.jpg", "reason": "no image"}

"""Every cell is a run that is begun once, continued, and never lost."""

from __future__ import annotations

import fcntl
import json

import pytest

from effnet.ablation.runner import read_trials, run_study
from effnet.errors import UserError
from effnet.recipes import load_recipe
from effnet.runs import InterruptedRunsError


def quiet(text):
    return None


def sessions(trial):
    return (trial.run / "sessions").read_text().split()


def test_every_cell_runs_with_every_seed_and_its_own_settings(study):
    trials = run_study(study(seeds=2, changes=["train.epochs=3"]), quiet)
    assert [(trial.cell.name, trial.seed) for trial in trials][:3] == [
        ("fixed", 0),
        ("fixed", 1),
        ("progressive", 0),
    ]
    assert len(trials) == 10
    arguments = trials[1].result["arguments"]
    assert arguments[:4] == ["train", "digits", "--recipe", str(study().recipe_path)]
    settings = arguments[arguments.index("--set") :]
    assert [s for s in settings if s.startswith(("train", "progressive"))] == [
        "train.epochs=3",
        "progressive.stages=1",
        "train.seed=1",
    ]
    assert arguments[-2:] == ["--quiet", "--json"]


def test_seeds_come_one_after_the_other_so_that_a_whole_table_is_early(study):
    told = []
    run_study(study(seeds=2), told.append)
    begun = [text for text in told if "begun" in text]
    assert begun[4:6] == ["random-adaptive, seed 0: begun", "fixed, seed 1: begun"]
    assert "random-adaptive, seed 1: top-1 60.00%" in told


def test_what_is_done_is_not_run_again_and_more_seeds_can_be_added(study):
    run_study(study(seeds=1), quiet)
    told = []
    trials = run_study(study(seeds=2), told.append)
    assert len(told) == 2 * 5
    assert all(sessions(trial) == ["started"] for trial in trials)


def test_jobs_share_the_processors(study, monkeypatch):
    monkeypatch.setattr("effnet.runs.thread_count", lambda workers: 8)
    trials = run_study(study(seeds=1, jobs=3), quiet)
    assert {trial.result["threads"] for trial in trials} == {"2"}
    assert "data.workers=2" in trials[0].result["arguments"]


@pytest.mark.parametrize(
    ("mode", "reason"), [("fail", "the loss is nan at step 3"), ("vanish", "it ended with code -9")]
)
def test_a_failed_cell_is_recorded_and_does_not_stop_the_others(study, behave, mode, reason):
    behave("progressive", mode)
    trials = run_study(study(seeds=1, jobs=2), quiet)
    assert [trial.failure for trial in trials] == ["", reason, "", "", ""]
    assert [trial.result is None for trial in trials] == [False, True, False, False, False]

    behave("progressive", "")
    trials = run_study(study(seeds=1), quiet)
    assert all(trial.result for trial in trials)
    assert sessions(trials[1]) == ["started", "resumed"]


def test_an_interruption_lets_every_run_save_and_the_same_call_continues(study, behave):
    behave("fixed", "interrupt")
    with pytest.raises(InterruptedRunsError, match="the same command continues it"):
        run_study(study(seeds=1), quiet)
    fixed, *others = read_trials(study(seeds=1))
    assert (fixed.run / "saved").exists()
    assert not any(trial.run.exists() for trial in others)
    trials = run_study(study(seeds=1), quiet)
    assert sessions(trials[0]) == ["started", "resumed"]
    assert all(trial.result for trial in trials)


def test_single_cells_can_be_run(study):
    trials = run_study(study(seeds=1, cells=["random"]), quiet)
    assert [trial.cell.name for trial in trials] == ["random"]
    assert len(run_study(study(seeds=1), quiet)) == 5


def test_a_folder_that_is_in_use_is_left_alone(study):
    made = study(seeds=1)
    made.out.mkdir()
    with (made.out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="are still going on"):
            run_study(made, quiet)


def test_a_folder_of_other_settings_is_left_alone(study):
    run_study(study(seeds=1), quiet)
    for options in ({"changes": ["train.epochs=3"]}, {"full": True}):
        with pytest.raises(UserError, match=r"begun with other settings, see .*/recipe\.toml; give what"):
            run_study(study(seeds=1, **options), quiet)
    with pytest.raises(UserError, match=r"begun with other settings, see .*/settings\.json"):
        run_study(study("table14", seeds=1), quiet)
    settings = json.loads((study().out / "settings.json").read_text())
    assert settings["cells"]["fixed"] == ["progressive.stages=1"]


def test_what_an_ablation_varies_cannot_be_set(study):
    for change in ("progressive.stages=2", "train.seed=1"):
        with pytest.raises(UserError, match=r"table13 sets (progressive\.stages|train\.seed) itself"):
            study(changes=[change])


def test_mistakes_are_found_before_anything_runs(study):
    with pytest.raises(UserError, match="there is no cell 'rndom'; did you mean 'random'"):
        study(cells=["rndom"])
    with pytest.raises(UserError, match=r"unknown key 'train\.epoch'"):
        study(changes=["train.epoch=1"])


def test_all_cells_share_what_the_recipe_was_when_the_folder_was_begun(study):
    made = study(seeds=1, changes=["train.epochs=3"])
    run_study(made, quiet)
    assert load_recipe(str(made.recipe_path)) == made.base
    assert made.base.train.epochs == 3.0
    made.recipe_path.write_text(made.recipe_path.read_text().replace("epochs = 3.0", "epochs = 4.0"))
    with pytest.raises(UserError, match=r"begun with other settings, see .*recipe\.toml"):
        run_study(made, quiet)

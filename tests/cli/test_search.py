"""``effnet search`` on the digits, with the smallest trainings that there are."""

import json

import pytest

from effnet.search.schedules.cost import StepCost
from effnet.search.worker import Assignment

from ..search.studies import process

TINY = (
    "--set", "train.epochs=1", "--set", "data.max_train_images=64", "--set", "progressive.image_size=[8,8]",
    "--set", "evaluate.image_size=8", "--strategy", "random", "--eta", "0", "--max-params", "400000",
    "--step-seconds", "0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search") / "study"


def test_a_search_trains_candidates_and_writes_what_comes_out(effnet, folder):
    answer = effnet(
        "search", "digits", "--trials", "2", "--workers", "2", "--out", str(folder), *TINY, "--json"
    )
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert report["states"] == {"done": 2}
    assert report["backbone_rank"] in {1, 2}
    assert {path.name for path in folder.iterdir()} >= {
        "best.json", "leaderboard.json", "leaderboard.md", "pareto.png", "study.db", "trials",
    }  # fmt: skip


def test_what_was_found_is_a_network_as_every_other(effnet, folder):
    answer = effnet("models", str(folder / "best.json"))
    assert answer.code == 0, answer.err
    answer = effnet(
        "plan", "digits", "--model", str(folder / "best.json"), "--recipe", "search", "--no-measure"
    )
    assert answer.code == 0, answer.err


def test_the_folder_is_enough_to_go_on_and_there_is_nothing_left_to_do(effnet, folder):
    answer = effnet("search", "--study", str(folder), "--trials", "2")
    assert answer.code == 0, answer.err
    assert "2 of them ended before" in answer.err
    assert "train the best with: effnet train DATA --model" in answer.out


def test_the_report_can_be_written_again_at_any_time(effnet, folder):
    (folder / "best.json").unlink()
    answer = effnet("search", "--study", str(folder), "--report")
    assert answer.code == 0, answer.err
    assert (folder / "best.json").is_file()


def test_optunas_dashboard_has_something_to_show(effnet, folder):
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{folder / 'optuna.db'}"
    answer = effnet("search", "--study", str(folder), "--report", "--optuna", url)
    assert answer.code == 0, answer.err
    assert len(optuna.load_study(study_name=folder.name, storage=url).trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "--max-params", "10"), "max_params is 10, and the smallest has"),
        (("digits", "--space", "v3"), "unknown space 'v3'"),
        (("digits", "--space", "shedule"), "unknown space 'shedule'; did you mean 'schedule'?"),
        (("digits", "--objective", "v3"), "unknown objective 'v3'"),
        (("digits", "--strategy", "tpe", "--strategy", "random"), "a study has one --strategy"),
        (("digits", "--table", "x.json"), "leave DATA out"),
        ((), "name the images to search on"),
        (("nowhere",), "nowhere' does not exist"),
    ],
)
def test_mistakes_end_in_one_sentence(effnet, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    answer = effnet("search", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


def test_a_study_of_another_space_is_refused(effnet, folder):
    answer = effnet("search", "digits", "--space", "v2", "--study", str(folder))
    assert answer.code == 2
    assert "was begun differently" in answer.err
    assert "space.name" in answer.err


def test_a_database_that_is_away_is_said_in_one_line(effnet, tmp_path):
    answer = effnet(
        "search", "digits", "--study", "postgresql://127.0.0.1:1/none", "--out", str(tmp_path / "s")
    )
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "127.0.0.1" in answer.err


# Schedules

STAND_IN = """
changes = json.loads((folder / 'spec.json').read_text())['changes']
ending(state='done', measures={'accuracy': 0.5, 'train_seconds': changes['train.epochs']})
"""
SCHEDULES = (
    "search", "digits", "--space", "schedule", "--recipe", "search", "--strategy", "random", "--trials", "4",
    "--repeats", "1", "--set", "train.epochs=2", "--set", "progressive.image_size=[8,16]",
)  # fmt: skip


@pytest.fixture
def without_training(monkeypatch):
    """Let a few lines stand for each training, and for the measurement of steps."""
    cost = StepCost(a_step=0.0, an_image=0.0, a_megapixel=1.0)
    monkeypatch.setattr("effnet.search.schedules.joining.measure_cost", lambda *_: cost)

    def with_command(**values):
        return Assignment(**values, command=process(STAND_IN))

    monkeypatch.setattr("effnet.search.study.Assignment", with_command)


@pytest.mark.usefixtures("without_training")
def test_a_search_over_schedules_says_whether_one_is_better_than_the_papers(effnet, tmp_path):
    folder = tmp_path / "s"
    answer = effnet(*SCHEDULES, "--out", str(folder))
    assert answer.code == 0, answer.err
    assert "schedules that take as long as the paper's in 2 epochs: 4 trials" in answer.err
    assert "trial 0: done, 4 stages from 8 px, seed 0, top-1 50.00%, 2 s of steps" in answer.err
    assert "trial 1: done, fixed 16 px, seed 0" in answer.err
    assert "paper's" in answer.out
    assert f"train the best with: effnet train DATA --recipe {folder / 'best.toml'}" in answer.out
    plan = effnet("plan", "digits", "--recipe", str(folder / "best.toml"), "--no-measure", "--json")
    assert plan.code == 0, plan.err
    report = json.loads(effnet("search", "--study", str(folder), "--report", "--json").out)
    assert report["states"] == {"done": 4 + 4}
    assert [entry["mark"] for entry in report["leaderboard"] if entry["mark"]]
    assert "not_complete" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-params", "10"), "leave --max-... out"),
        (("--eta", "3"), "leave --eta and --rungs out"),
        (("--objective", "v1"), "compared by accuracy"),
    ],
)
def test_what_means_nothing_for_schedules_is_said_in_one_sentence(effnet, tmp_path, arguments, message):
    answer = effnet(*SCHEDULES, *arguments, "--out", str(tmp_path / "s"))
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1

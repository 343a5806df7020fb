"""Beginning, joining and refusing studies of schedules, and what a trial of one trains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch.io import to_dict
from effnet.errors import UserError
from effnet.files import write_json
from effnet.search.bounds import Bounds
from effnet.search.job import Job, TrialFolder
from effnet.search.joining import Place, Request
from effnet.search.objective import Objective
from effnet.search.opening import open_any, opened_any
from effnet.search.patience import Patience
from effnet.search.schedules import joining
from effnet.search.schedules.study import ScheduleStudy
from effnet.search.settings import without_place
from effnet.search.trial import run_trial, schedule_config

from ..studies import settings

TINY = ("train.epochs=1", "data.max_train_images=48", "progressive.image_size=[8,16]", "data.workers=1")
ASKED = Request(data="digits", space="schedule", recipe="search", changes=TINY, strategy="random")


@pytest.fixture
def open_it(tmp_path, monkeypatch, cost, digits_network):
    monkeypatch.setattr(joining, "measure_cost", lambda *_: cost)

    def opening(request, folder="s"):
        request = replace(request, model=request.model or digits_network.network)
        place = Place.of(None, tmp_path / folder)
        return open_any(request, place, patience=Patience(), threads=1, announce=lambda _: None)

    return opening


def test_a_study_of_schedules_is_begun_joined_and_looked_at(open_it, tmp_path, cost):
    with open_it(replace(ASKED, repeats=1)) as study:
        assert isinstance(study, ScheduleStudy)
        assert study.space.seeds == 2
        assert study.settings.step_cost == cost
        assert study.settings.rung_epochs == ()
        assert (study.settings.run.data.minival_fraction, str(study.settings.objective)) == (0.1, "accuracy")
        assert len(study.ledger.trials()) == 3
    with open_it(replace(ASKED, repeats=None)) as study:
        assert (study.space.seeds, len(study.ledger.trials())) == (2, 3)
    with opened_any(Place.of(None, tmp_path / "s")) as study:
        assert isinstance(study, ScheduleStudy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 4}, "begun differently: space.seeds is 3 there, 5 here"),
        ({"changes": (*TINY, "train.epochs=2")}, "settings.run.train.epochs is 1.0 there, 2.0 here"),
        ({"space": "small"}, "is one of schedules, got --space small"),
    ],
)
def test_a_study_that_was_begun_differently_is_refused(open_it, changes, message):
    open_it(ASKED).ledger.close()
    with pytest.raises(UserError, match=message):
        open_it(replace(ASKED, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": Bounds(max_params=10)}, "leave --max-... out"),
        ({"eta": 3}, "leave --eta and --rungs out"),
        ({"objective": "v2"}, "compared by accuracy, got --objective v2; leave it out"),
        ({"strategy": "guess"}, "guess"),
        ({"data": None}, "name the images to search on"),
        ({"changes": (*TINY, "progressive.image_size=[8,8]")}, "8 px throughout"),
    ],
)
def test_what_means_nothing_for_schedules_is_refused(open_it, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        open_it(replace(ASKED, **changes))
    assert not (tmp_path / "s" / "study.db").exists()


def test_networks_have_no_repeats(open_it, tmp_path):
    with pytest.raises(UserError, match="leave --repeats out"):
        open_it(replace(ASKED, space="small", repeats=1))
    assert not (tmp_path / "s").exists()


def test_a_trial_trains_its_schedule(open_it, tmp_path):
    with open_it(ASKED) as study:
        composers = study.ledger.trials()[2]
        job = Job(settings=study.settings, source="digits", threads=1)
    folder = TrialFolder(path=tmp_path)
    folder.spec_path.write_text(composers.spec)
    write_json(folder.job_path, to_dict(job))
    ending = run_trial(folder)
    assert ending.state == "done"
    assert 0 <= ending.measures.accuracy <= 1
    assert ending.measures.train_seconds > 0
    written = (folder.run / "config.toml").read_text()
    assert "hold_share = 0.5" in written
    assert "cooldown_share = 0.2" in written


def test_a_trial_is_evaluated_at_the_ends_of_stages_alone(recipe, space, cost):
    job = Job(
        settings=settings(run=without_place(recipe), objective=Objective(kind="accuracy"), step_cost=cost),
        source="digits",
        threads=2,
    )
    run = schedule_config(job, space.schedule(space.fixed, recipe, cost))
    assert (run.data.source, run.data.workers) == ("digits", 2)
    assert run.evaluate.every_epochs > 1e5
    assert run.progressive.stages == 1

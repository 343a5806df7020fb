"""Workers of one machine on a study, with a few lines in place of each training."""

from threading import Thread

import pytest

from effnet.search.bounds import Bounds
from effnet.search.measures import Measures
from effnet.search.study import SystematicFailureError, run_study

from .studies import SPACE, SUCCESS, never_stopped, open_study


def run(study, **changes):
    values = {
        "trials": 3,
        "hours": None,
        "workers": 2,
        "stop": never_stopped(),
        "report": lambda progress: None,
    }
    run_study(study, **values | changes)


def test_as_many_are_trained_as_were_asked_for_and_the_backbone_comes_first(tmp_path, train_by):
    train_by(SUCCESS)
    seen = []
    with open_study(tmp_path / "s") as study:
        study.queue_backbone()
        run(study, report=lambda progress: seen.append(progress.ending.state))
        trials = study.ledger.trials()
    assert [trial.state for trial in trials] == ["done"] * 3 == seen
    assert trials[0].point == SPACE.point(SPACE.backbone)
    assert len({trial.point for trial in trials}) == 3


def test_a_backbone_over_a_bound_is_not_tried(tmp_path):
    with open_study(tmp_path / "s", bounds=Bounds(max_params=10)) as study:
        study.queue_backbone()
        assert study.ledger.trials() == []


def test_the_search_goes_on_where_it_was_left(tmp_path, train_by):
    train_by(SUCCESS)
    with open_study(tmp_path / "s") as study:
        run(study, trials=2)
    with open_study(tmp_path / "s") as study:
        run(study, trials=4)
        assert [trial.number for trial in study.ledger.trials()] == [0, 1, 2, 3]


def test_a_whole_space_that_was_tried_is_an_end_and_no_failure(tmp_path, train_by):
    train_by(SUCCESS)
    with open_study(tmp_path / "s") as study:
        run(study, trials=100)
        assert len(study.ledger.trials()) == SPACE.count() == 8


def test_three_failures_for_one_reason_end_the_search_with_it(tmp_path, train_by):
    train_by("ending(state='failed', reason='cannot read /data/' + folder.name)")
    with (
        open_study(tmp_path / "s") as study,
        pytest.raises(SystematicFailureError, match=r"first 3 candidates all failed.*cannot read /data/000"),
    ):
        run(study, trials=8, workers=1)


def test_failures_after_a_success_are_the_candidates_own(tmp_path, train_by):
    train_by("ending(state='failed', reason='no') if int(folder.name) else " + SUCCESS)
    with open_study(tmp_path / "s") as study:
        run(study, trials=8, workers=1)
        assert [trial.state for trial in study.ledger.trials()] == ["done", *["failed"] * 7]


def test_failures_for_different_reasons_do_not_end_the_search(tmp_path, train_by):
    train_by("ending(state='failed', reason='abc'[int(folder.name) % 3])")
    with open_study(tmp_path / "s") as study:
        run(study, trials=8, workers=1)
        assert len(study.ledger.trials()) == 8


def test_rejected_candidates_are_not_counted_as_trained(tmp_path, train_by):
    train_by("ending(state='rejected', reason='too slow') if int(folder.name) < 2 else " + SUCCESS)
    with open_study(tmp_path / "s") as study:
        run(study, trials=3, workers=1)
        assert [trial.state for trial in study.ledger.trials()] == [*["rejected"] * 2, *["done"] * 3]


def test_what_could_not_be_told_the_last_time_is_told_first(tmp_path, train_by, monkeypatch):
    train_by(SUCCESS)
    from effnet.errors import UnreachableError
    from effnet.search.ledger import Ledger

    deliver = Ledger.deliver

    def away(self, outcome):
        raise UnreachableError("the database is away")

    with open_study(tmp_path / "s") as study:
        monkeypatch.setattr(Ledger, "deliver", away)
        with pytest.raises(UnreachableError):
            run(study, trials=1, workers=1)
        assert [trial.state for trial in study.ledger.trials()] == ["running"]
        monkeypatch.setattr(Ledger, "deliver", deliver)
        run(study, trials=1, workers=1)
        (trial,) = study.ledger.trials()
    assert trial.state == "done"
    assert trial.measures == Measures(accuracy=0.5, macs=1_000_000)


def test_two_machines_share_a_study(tmp_path, train_by):
    train_by(SUCCESS)
    with open_study(tmp_path / "s") as here, open_study(tmp_path / "s") as there:
        threads = [Thread(target=run, args=(each,), kwargs={"trials": 8}) for each in (here, there)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        trials = here.ledger.trials()
    assert [trial.state for trial in trials] == ["done"] * 8
    assert [trial.tries for trial in trials] == [1] * 8

"""The ledger in one process: what it hands out, what it takes, and who may say what."""

import time

import pytest

from effnet.errors import UnreachableError, UserError
from effnet.search.heartbeat import Heartbeat
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.outbox import Outbox
from effnet.search.records import Candidate, Outcome, Rung

SETTINGS = {"epochs": 3, "bounds": {"max_params": 5}}
SPACE = {"name": "v2", "kernels": (3, 5)}


def candidate(*point: int) -> Candidate:
    return Candidate(point=point, spec=f'{{"point": {list(point)}}}')


def the_next(history):
    return candidate(len(history))


def never(history):
    raise AssertionError("nothing was to be proposed")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def ledger(url):
    with Ledger.open(url, SETTINGS, SPACE) as opened:
        yield opened


@pytest.fixture
def doomed(url):
    """The ledger of workers whose leases have ended before they begin."""
    with Ledger.open(url, SETTINGS, SPACE, lease_seconds=-1) as opened:
        yield opened


def until(condition) -> bool:
    """Wait for something that another thread does."""
    for _ in range(3000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_trials_are_numbered_and_come_back_as_they_were_told(ledger):
    first, second = ledger.ask(the_next, "a"), ledger.ask(the_next, "b")
    measures = Measures(accuracy=0.123456789012345, step_ms=1.5, params=7)
    ledger.report_rung(first, Rung(epochs=2.0, accuracy=0.5))
    ledger.report_rung(first, Rung(epochs=1.0, accuracy=0.25))
    ledger.finish(first, "done", measures)
    ledger.finish(second, "failed", reason="out of memory")

    done, failed = ledger.trials()

    assert (done.number, done.state, done.measures, done.owner) == (0, "done", measures, "a")
    assert done.candidate == candidate(0)
    assert done.rungs == (Rung(epochs=1.0, accuracy=0.25), Rung(epochs=2.0, accuracy=0.5))
    assert done.asked_at <= done.started_at <= done.ended_at
    assert done.seconds == pytest.approx(done.ended_at - done.started_at, abs=1e-3)
    assert (failed.number, failed.state, failed.measures, failed.reason) == (
        1,
        "failed",
        None,
        "out of memory",
    )


def test_times_are_the_time_of_day(ledger):
    before = time.time()
    trial = ledger.ask(the_next, "a")
    assert before - 1 <= trial.asked_at <= time.time() + 1
    assert trial.lease_until == pytest.approx(trial.started_at + ledger.lease_seconds, abs=0.1)


def test_the_limit_counts_all_trials(ledger):
    for _ in range(2):
        ledger.finish(ledger.ask(the_next, "a", limit=2), "failed", reason="bad")
    assert ledger.ask(never, "a", limit=2) is None


def test_what_is_queued_comes_first_and_once(ledger):
    ledger.queue([candidate(7), candidate(8), candidate(7)])
    ledger.queue([candidate(8)])
    assert [ledger.ask(the_next, "a").point for _ in range(3)] == [(7,), (8,), (2,)]


def test_what_was_tried_is_not_taken_again(ledger):
    ledger.ask(the_next, "a")
    with pytest.raises(ValueError, match=r"\(0,\) was proposed, which was tried already"):
        ledger.ask(lambda history: candidate(0), "b")
    assert len(ledger.trials()) == 1


def test_a_proposal_that_fails_leaves_the_ledger_as_it_was(ledger):
    def all_tried(history):
        raise UserError("all 9 points of the space were tried")

    with pytest.raises(UserError, match="all 9 points"):
        ledger.ask(all_tried, "a")
    assert ledger.trials() == []
    assert ledger.ask(the_next, "a").number == 0


def test_a_trial_whose_lease_ran_out_is_taken_over(ledger, doomed):
    assert ledger.ask(the_next, "a").number == 0
    lost = doomed.ask(the_next, "b")
    taken = ledger.ask(never, "c")
    assert (lost.number, taken.number, taken.owner, taken.tries) == (1, 1, "c", 2)
    assert taken.claim != lost.claim
    assert ledger.ask(the_next, "d").number == 2


def test_a_sign_of_life_keeps_a_trial(ledger, doomed):
    trial = doomed.ask(the_next, "a")
    assert ledger.heartbeat(trial)  # For as long as this one's leases are.
    assert ledger.ask(the_next, "b").number == 1


def test_a_late_outcome_is_kept_and_does_not_count(ledger, doomed):
    lost = doomed.ask(the_next, "a")
    taken = ledger.ask(never, "b")

    for _ in range(2):
        assert not doomed.finish(lost, "done", Measures(accuracy=0.9))
    assert not doomed.heartbeat(lost)
    assert not doomed.report_rung(lost, Rung(epochs=1, accuracy=0.9))
    assert not doomed.release(lost)
    assert ledger.finish(taken, "done", Measures(accuracy=0.5))

    [trial], [late] = ledger.trials(), ledger.late_outcomes()
    assert (trial.measures, trial.rungs, trial.owner) == (Measures(accuracy=0.5), (), "b")
    assert (late.outcome.owner, late.outcome.measures) == ("a", Measures(accuracy=0.9))


def test_a_slow_worker_that_nobody_replaced_still_counts(doomed):
    trial = doomed.ask(the_next, "a")
    assert doomed.finish(trial, "done", Measures(accuracy=0.5))
    assert doomed.late_outcomes() == []


def test_a_trial_that_three_workers_were_lost_in_is_given_up(doomed):
    for _ in range(3):
        last = doomed.ask(lambda history: candidate(0), "a", limit=1)
        assert last.number == 0

    assert doomed.ask(never, "b", limit=1) is None

    [trial] = doomed.trials()
    assert (trial.state, trial.tries) == ("failed", 3)
    assert "3 workers" in trial.reason
    assert not doomed.finish(last, "done", Measures(accuracy=0.5))
    assert doomed.trials() == [trial]
    assert len(doomed.late_outcomes()) == 1


def test_a_trial_that_is_handed_back_was_not_tried(ledger):
    for _ in range(4):
        trial = ledger.ask(lambda history: candidate(0), "a", limit=1)
        ledger.report_rung(trial, Rung(epochs=1, accuracy=0.5))
        assert ledger.release(trial)
    [waiting] = ledger.trials()
    assert (waiting.state, waiting.tries, waiting.has_ended) == ("queued", 0, False)
    assert waiting.rungs == (Rung(epochs=1, accuracy=0.5),)
    assert not ledger.finish(trial, "done")


def test_to_finish_twice_is_no_harm(ledger):
    trial = ledger.ask(the_next, "a")
    assert ledger.finish(trial, "done", Measures(accuracy=0.5))
    assert ledger.finish(trial, "done", Measures(accuracy=0.5))
    assert ledger.late_outcomes() == []


def test_the_heartbeat_renews_a_lease_again_and_again(url):
    with Ledger.open(url, SETTINGS, SPACE, lease_seconds=0.02) as ledger:
        trial = ledger.ask(the_next, "a")
        with Heartbeat(ledger, trial) as heartbeat:
            assert until(lambda: ledger.trials()[0].lease_until > trial.lease_until + 0.1)
            assert not heartbeat.is_lost


def test_the_heartbeat_notices_that_the_trial_is_gone(ledger, doomed):
    lost = doomed.ask(the_next, "a")
    ledger.ask(never, "b")
    with Heartbeat(doomed, lost) as heartbeat:
        assert until(lambda: heartbeat.is_lost)


def test_another_study_is_refused_with_what_differs(url, ledger):
    with pytest.raises(UserError) as refused:
        Ledger.open(url, {"epochs": 4, "bounds": {"max_params": 5}}, {"name": "v1", "kernels": (3, 5)})
    assert "settings.epochs is 3 there, 4 here" in str(refused.value)
    assert 'space.name is "v2" there, "v1" here' in str(refused.value)


def test_a_study_can_be_joined_without_its_settings(url, ledger):
    with Ledger.existing(url) as joined:
        assert joined.settings == SETTINGS
        assert joined.space == {"name": "v2", "kernels": [3, 5]}


def test_there_is_nothing_to_join_and_no_file_is_made(tmp_path):
    with pytest.raises(UserError, match="there is no study 'study' in"):
        Ledger.existing(f"sqlite:///{tmp_path / 'no.db'}")
    assert Ledger.find(f"sqlite:///{tmp_path / 'no.db'}") is None
    assert list(tmp_path.iterdir()) == []


def test_several_studies_share_a_database(url, ledger):
    assert Ledger.find(f"{url}?study=other") is None
    ledger.ask(the_next, "a")
    with Ledger.open(f"{url}?study=other", {}, {}) as other:
        assert other.ask(the_next, "a").number == 0
        assert other.ask(the_next, "a").number == 1
    assert len(ledger.trials()) == 1


@pytest.mark.parametrize("bad", ["sqlite://", "mysql://host/study", "study.db", "sqlite:///:memory:"])
def test_what_is_no_url_of_a_study_is_refused(bad):
    with pytest.raises(UserError, match="a study's URL"):
        Ledger.open(bad, {}, {})


def test_the_outbox_keeps_what_could_not_be_delivered(tmp_path, ledger, monkeypatch):
    outbox, trial = Outbox(tmp_path / "outbox"), ledger.ask(the_next, "a")
    outcome = Outcome(number=0, claim=trial.claim, owner="a", state="done", measures=Measures(accuracy=0.5))

    def away(self, outcome):
        raise UnreachableError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "deliver", away)
        with pytest.raises(UnreachableError, match="the database is gone"):
            outbox.send(ledger, outcome)
    assert Outbox(tmp_path / "outbox").send_left(ledger) == 1
    assert ledger.trials()[0].measures == Measures(accuracy=0.5)
    assert outbox.send_left(ledger) == 0

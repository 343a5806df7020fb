"""A worker and the process that it follows, which here is a few lines in place of a training."""

import json
import time
from threading import Event, Thread

import pytest

from effnet.search.job import Job
from effnet.search.records import Rung
from effnet.search.worker import Assignment, EnoughTrialsError, work

from .studies import SUCCESS, open_study, process, wait_for


def assignment(study, script, *, wanted=1, **changes):
    def propose(history):
        if len(history) >= wanted:
            raise EnoughTrialsError
        return study.propose(history)

    values = {
        "ledger": study.ledger,
        "job": Job(settings=study.settings, source=study.source, threads=1, reference=study.reference),
        "trials": study.folder / "trials",
        "propose": propose,
        "why_hopeless": lambda trial: "",
        "stop": Event(),
        "deadline": float("inf"),
        "told": lambda trial, ending: None,
        "command": process(script),
    }
    return Assignment(**values | changes)


@pytest.fixture
def study(tmp_path):
    opened = open_study(tmp_path / "study")
    with opened.ledger:
        yield opened


def test_what_a_process_says_is_what_the_ledger_has(study):
    told = []
    work(
        assignment(study, SUCCESS, told=lambda trial, ending: told.append((trial.number, ending.state))), "me"
    )
    (trial,) = study.ledger.trials()
    assert (trial.state, trial.owner) == ("done", "me")
    assert trial.measures is not None
    assert trial.measures.accuracy == 0.5
    assert told == [(0, "done")]
    assert json.loads((study.folder / "trials/0000/spec.json").read_text())["name"].startswith("toy-")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.stderr.write('no such thing'); sys.exit(3)", "ended with code 3, and said: no such thing"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, as the system does where memory runs out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("ending(state='failed', reason='out of memory: no room')", "out of memory: no room"),
    ],
)
def test_a_candidate_that_fails_is_recorded_with_the_reason_and_the_next_one_is_tried(study, script, reason):
    work(assignment(study, script, wanted=2), "me")
    assert [trial.state for trial in study.ledger.trials()] == ["failed", "failed"]
    assert all(reason in trial.reason for trial in study.ledger.trials())


def test_a_trial_that_takes_too_long_has_failed(tmp_path):
    with (opened := open_study(tmp_path / "slow", trial_minutes=0.005)).ledger:
        work(assignment(opened, "time.sleep(60)"), "me")
        (trial,) = opened.ledger.trials()
    assert (trial.state, trial.reason) == ("failed", "it took longer than 0.005 minutes")


def test_what_is_hopeless_is_rejected_without_a_process(study):
    work(assignment(study, "sys.exit(1)", why_hopeless=lambda trial: "too slow"), "me")
    (trial,) = study.ledger.trials()
    assert (trial.state, trial.reason) == ("rejected", "too slow")


def test_a_request_to_stop_saves_the_trial_and_hands_it_back(study):
    script = """
def save(*_):
    (folder / 'saved').touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
(folder / 'ready').touch()
time.sleep(60)
"""
    task = assignment(study, script)
    thread = Thread(target=work, args=(task, "me"))
    thread.start()
    wait_for((study.folder / "trials/0000/ready").exists)
    task.stop.set()
    thread.join(30)
    (trial,) = study.ledger.trials()
    assert (trial.state, trial.tries) == ("queued", 0)
    assert (study.folder / "trials/0000/saved").exists()
    work(assignment(study, SUCCESS), "me again")
    assert [trial.state for trial in study.ledger.trials()] == ["done"]


def test_accuracies_at_rungs_are_reported_and_who_is_left_behind_is_stopped(tmp_path):
    script = """
costs(macs=1000000)
accuracy = [0.5, 0.6, 0.1][int(folder.name)]
metrics(step=1, epoch=1.003, val_top1=accuracy)
metrics(step=2, epoch=2.003, val_top1=0.7)
time.sleep(0.6)
if folder.name == '0002':
    time.sleep(60)
ending(state='done', measures={'accuracy': 0.8, 'macs': 1000000})
"""
    with (opened := open_study(tmp_path / "rungs", eta=3, rungs=1)).ledger:
        work(assignment(opened, script, wanted=3), "me")
        trials = opened.ledger.trials()
    assert [trial.state for trial in trials] == ["done", "done", "stopped"]
    assert trials[2].rungs == (Rung(epochs=1.0, accuracy=0.1),)
    assert trials[2].reason == "with 10.00% after 1 epochs it was not among the best 1/3 of 3"
    assert trials[2].measures is not None
    assert trials[2].measures.accuracy is None


def test_the_process_of_a_trial_that_was_lost_is_ended(study):
    task = assignment(study, "(folder / 'pid').write_text(str(os.getpid())); time.sleep(60)")
    thread = Thread(target=work, args=(task, "me"))
    thread.start()
    pid_path = study.folder / "trials/0000/pid"
    wait_for(lambda: pid_path.exists() and pid_path.read_text() != "")
    # As if another worker had it: whoever knows the claim can hand it back, and take it again.
    (trial,) = study.ledger.trials()
    assert study.ledger.release(trial)
    other = study.ledger.ask(lambda history: pytest.fail("not this one"), "other")
    assert other is not None
    wait_for(lambda: not _is_alive(int(pid_path.read_text())))
    study.ledger.finish(other, "done")
    thread.join(30)
    assert [trial.owner for trial in study.ledger.trials()] == ["other"]


def test_no_trial_begins_after_the_deadline(study):
    work(assignment(study, SUCCESS, deadline=time.monotonic() - 1), "me")
    assert study.ledger.trials() == []


def _is_alive(pid):
    from pathlib import Path

    return Path(f"/proc/{pid}").exists()

"""Databases that are away, full, torn, locked, read-only or none: one line, and nothing lost."""

import re
import sqlite3
import sys
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from effnet.errors import UnreachableError, UserError
from effnet.search import database
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.outbox import Outbox
from effnet.search.patience import Patience
from effnet.search.records import Candidate, Outcome

HASTY = Patience(seconds=0)


def the_next(history):
    return Candidate(point=(len(history),), spec="{}")


def outcome_of(trial) -> Outcome:
    return Outcome(
        number=trial.number,
        claim=trial.claim,
        owner=trial.owner,
        state="done",
        measures=Measures(accuracy=0.5),
    )


@contextmanager
def one_line(kind, *parts):
    with pytest.raises(kind) as raised:
        yield
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_server_that_does_not_answer(postgresql):
    url = "postgresql://user:secret@127.0.0.1:1/study"
    for begin in (lambda: Ledger.open(url, {}, {}), lambda: Ledger.existing(url)):
        with one_line(
            UnreachableError, "postgresql://user:***@127.0.0.1:1/study cannot be reached", "refused"
        ):
            begin()


def test_a_host_that_does_not_exist(postgresql):
    with one_line(UnreachableError, "cannot be reached"):
        Ledger.open("postgresql://user@no-such-host.invalid/study", {}, {})


def test_a_database_that_does_not_exist_is_the_users_to_mend(postgresql):
    with one_line(UserError, "cannot be opened", 'database "absent" does not exist'):
        Ledger.open(postgresql.url("absent"), {}, {})


def test_an_account_that_may_not_write(postgresql):
    url = postgresql.new_database()
    Ledger.open(url, {}, {}).close()
    postgresql.execute("CREATE ROLE reader LOGIN")
    with one_line(UserError, "may not be written", "permission denied"):
        Ledger.open(url.replace("effnet@", "reader@"), {}, {})


def test_a_password_is_never_shown():
    assert "secret" not in database.Database("postgresql://host/name?password=secret&user=a").shown


def test_the_driver_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with one_line(UserError, "needs psycopg", "'postgresql'"):
        Ledger.open("postgresql://host/study", {}, {})


def test_a_server_that_comes_back_is_waited_for(postgresql):
    said = []

    def announce(message):
        said.append(message)
        if len(said) == 1:
            postgresql.start()

    with Ledger.open(postgresql.new_database(), {}, {}, patience=Patience(announce=announce)) as ledger:
        trial = ledger.ask(the_next, "a")
        postgresql.stop()
        assert ledger.finish(trial, "done", Measures(accuracy=0.5))
        assert ledger.trials()[0].state == "done"
    away, back = said
    assert "cannot be reached" in away
    assert "trying again for 600 s" in away
    assert "back" in back


def test_what_a_lost_server_was_not_told_is_kept(postgresql, tmp_path):
    url, outbox = postgresql.new_database(), Outbox(tmp_path / "outbox")
    with Ledger.open(url, {}, {}, patience=HASTY) as ledger:
        outcome = outcome_of(ledger.ask(the_next, "a"))
        postgresql.stop()
        try:
            with one_line(UnreachableError, "cannot be reached"):
                outbox.send(ledger, outcome)
        finally:
            postgresql.start()
    with Ledger.existing(url) as ledger:
        assert outbox.send_left(ledger) == 1
        assert ledger.trials()[0].measures == outcome.measures
        assert ledger.late_outcomes() == []


def test_a_connection_that_is_cut_within_a_transaction_is_made_anew(postgresql):
    url = postgresql.new_database()
    cuts = []

    def propose(history):
        if not cuts:
            cuts.append(1)
            name = url.partition("@/")[2].partition("?")[0]
            postgresql.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )
        return the_next(history)

    with Ledger.open(url, {}, {}) as ledger:
        assert ledger.ask(propose, "a").number == 0
        assert [trial.tries for trial in ledger.trials()] == [1]
    assert cuts == [1]


def test_a_machine_that_vanishes_with_the_lock_does_not_keep_it(postgresql):
    study = database.Database(postgresql.new_database())
    with study.writing() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "1min"
    study.close()


def test_an_answer_that_was_lost_does_not_make_a_second_trial(database_url, monkeypatch):
    """The transaction came to pass, but the connection broke before the worker heard of it."""
    ledger = Ledger.open(database_url, {}, {})
    whole, losses = database.Database.writing, iter([True, False] * 3)

    @contextmanager
    def writing(self):
        with whole(self) as connection:
            yield connection
        if next(losses):
            raise UnreachableError("the cable was pulled")

    monkeypatch.setattr(database.Database, "writing", writing)
    with ledger:
        trial = ledger.ask(the_next, "a")
        assert ledger.finish(trial, "done", Measures(accuracy=0.5))
        ledger.queue([Candidate(point=(9,), spec="{}")])
        assert [(trial.point, trial.state) for trial in ledger.trials()] == [((0,), "done"), ((9,), "queued")]
        assert ledger.late_outcomes() == []


def test_waiting_ends_when_somebody_asks_to_stop(tmp_path):
    attempts = []

    def away():
        attempts.append(1)
        raise UnreachableError("away")

    with pytest.raises(UnreachableError):
        Patience(seconds=1000, is_stopped=lambda: len(attempts) == 2).persist(away)


@pytest.fixture
def path(tmp_path):
    """A study with twenty trials, and closed."""
    path = tmp_path / "study.db"
    with Ledger.open(f"sqlite:///{path}", {}, {}) as ledger:
        for _ in range(20):
            ledger.finish(ledger.ask(the_next, "a"), "done", Measures(accuracy=0.5))
    return path


def test_a_folder_that_is_not_there(tmp_path):
    with one_line(UserError, "cannot be opened", "folder must exist"):
        Ledger.open(f"sqlite:///{tmp_path}/no/study.db", {}, {})


def test_a_file_that_is_no_database(path):
    path.write_text("what is this?" * 100)
    for begin in (
        lambda: Ledger.open(f"sqlite:///{path}", {}, {}),
        lambda: Ledger.existing(f"sqlite:///{path}"),
    ):
        with one_line(UserError, f"{path} is damaged or not a study"):
            begin()


def test_a_file_that_was_cut_off_is_not_taken_for_a_shorter_study(path):
    whole, refused = path.read_bytes(), 0
    for size in range(0, len(whole), len(whole) // 20 + 1):
        path.write_bytes(whole[:size])
        try:
            with Ledger.existing(f"sqlite:///{path}") as ledger:
                assert len(ledger.trials()) == 20, "only what is empty was cut off"
        except UserError as error:
            refused += bool(re.search("is damaged|there is no study", str(error)))
    assert refused > 10


def test_a_page_that_was_overwritten_is_noticed_before_it_is_needed(path):
    whole, page = path.read_bytes(), 4096
    for start in range(page, len(whole), page):
        path.write_bytes(whole[:start] + b"\xff" * page + whole[start + page :])
        with one_line(UserError, "is damaged"):
            Ledger.existing(f"sqlite:///{path}")


def test_a_log_that_was_torn_off_loses_only_what_was_in_its_torn_end(path, tmp_path):
    """As after a loss of power on a disk that lies about what it has written."""
    ledger = Ledger.open(f"sqlite:///{path}", {}, {})
    ledger.finish(ledger.ask(the_next, "a"), "done", Measures(accuracy=0.5))
    log = path.with_name("study.db-wal").read_bytes()
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    copy.with_name("copy.db-wal").write_bytes(log[: len(log) - 100])
    ledger.close()

    with Ledger.open(f"sqlite:///{copy}", {}, {}, lease_seconds=1) as torn:
        assert [trial.state for trial in torn.trials()] == ["done"] * 20 + ["running"]


def test_a_file_that_is_read_only(path):
    with Ledger.open(f"sqlite:///file:{path}?mode=ro&uri=true", {}, {}) as ledger:
        assert len(ledger.trials()) == 20
        with one_line(UserError, "is read-only", "writable"):
            ledger.ask(the_next, "a")


def test_a_disk_that_is_full_for_a_while(path, tmp_path, monkeypatch):
    pages = {"PRAGMA max_page_count = 1": 1}
    monkeypatch.setattr(database, "_SQLITE_SETTINGS", (*database._SQLITE_SETTINGS, *pages))
    with Ledger.open(f"sqlite:///{path}", {}, {}, patience=HASTY) as ledger:
        with one_line(UnreachableError, "cannot be written at the moment", "full"):
            ledger.queue([Candidate(point=(number,), spec="{}" * 1000) for number in range(100, 120)])
        assert len(ledger.trials()) == 20
    monkeypatch.undo()
    with Ledger.open(f"sqlite:///{path}", {}, {}) as ledger:
        assert ledger.ask(the_next, "a").number == 20


def test_another_writer_that_does_not_end(path, monkeypatch):
    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.01)
    with Ledger.open(f"sqlite:///{path}", {}, {}, patience=HASTY) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with one_line(UnreachableError, "cannot be written at the moment", "locked"):
            ledger.ask(the_next, "a")
        assert len(ledger.trials()) == 20, "reading goes on"
        other.execute("ROLLBACK")
        other.close()
        assert ledger.ask(the_next, "a").number == 20


def test_a_study_of_a_later_version_is_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE search_study SET format = 99")
    connection.close()
    with one_line(UserError, "later version of effnet"):
        Ledger.existing(f"sqlite:///{path}")

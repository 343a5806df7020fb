"""Several processes on one study, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import create_engine, update

from effnet.search.ledger import Ledger
from effnet.search.schema import trials as trial_table

TRIALS = 15
_PATIENCE = 300
WORKER = Path(__file__).with_name("ledger_worker.py")


@pytest.fixture
def start(database_url, tmp_path):
    """Start a worker of a certain fate, in the study of all of them."""
    running = []

    def begin(fate: str) -> subprocess.Popen:
        name = f"{fate}-{len(running)}"
        journal = tmp_path / f"{name}.jsonl"
        command = [sys.executable, str(WORKER), database_url, name, str(journal), fate, str(TRIALS)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def let_leases_end(url: str) -> None:
    """As if a minute had gone by; the living renew theirs."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(
            update(trial_table).where(trial_table.c.state == "running").values(lease_until=0.0)
        )
    engine.dispose()


def read_journals(folder: Path) -> list[dict]:
    return [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


def test_workers_that_are_killed_lose_nothing_and_repeat_only_what_they_held(database_url, start, tmp_path):
    # All three begin the study at the same time.
    in_trial, in_transaction, unheard = start("in-trial"), start("in-transaction"), start("unheard")
    held = int(in_trial.stdout.readline().removeprefix("holding "))
    assert in_transaction.wait(_PATIENCE) == unheard.wait(_PATIENCE) == -signal.SIGKILL
    os.kill(in_trial.pid, signal.SIGKILL)
    assert in_trial.wait(_PATIENCE) == -signal.SIGKILL
    with Ledger.existing(database_url) as ledger:
        left = [trial for trial in ledger.trials() if not trial.has_ended]
    assert {trial.owner.partition("-")[0] for trial in left} <= {"in", "unheard"}
    assert held in {trial.number for trial in left}
    let_leases_end(database_url)

    assert [process.wait(_PATIENCE) for process in [start("lives"), start("lives")]] == [0, 0]

    with Ledger.existing(database_url) as ledger:
        trials = ledger.trials()
        assert ledger.late_outcomes() == []
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {"done"}
    assert [trial.tries for trial in trials] == [2 if trial.number == held else 1 for trial in trials]
    assert len({trial.point for trial in trials}) == TRIALS

    told = read_journals(tmp_path)
    assert Counter(row["number"] for row in told) == Counter(range(TRIALS))
    best = max(trials, key=lambda trial: trial.measures.accuracy)
    assert {"number": best.number, "accuracy": best.measures.accuracy} == max(
        told, key=lambda row: row["accuracy"]
    )

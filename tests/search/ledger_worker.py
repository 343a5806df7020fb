"""A worker that only pretends to train: ``URL NAME JOURNAL FATE TRIALS``.

Fates: ``lives``; ``in-trial`` holds its second trial until it is killed; ``in-transaction`` kills itself
while it holds the lock and has not committed; ``unheard`` kills itself when it knows how good its second
trial is.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from effnet.search.heartbeat import Heartbeat
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.outbox import Outbox
from effnet.search.records import Candidate, Outcome, Rung

url, name, journal, fate, trials = *sys.argv[1:5], int(sys.argv[5])
journal = Path(journal)
asked = 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def propose(history):
    if fate == "in-transaction" and asked == 2:
        die()
    return Candidate(point=(len(history) * 7 % 100, len(history)), spec="{}")


with Ledger.open(url, {"trials": trials}, {"name": "pretended"}) as ledger:
    outbox = Outbox(journal.with_name("outbox"))
    outbox.send_left(ledger)
    while True:
        asked += 1
        trial = ledger.ask(propose, name, limit=trials)
        if trial is None:
            if all(trial.has_ended for trial in ledger.trials()):
                break
            time.sleep(0.02)
            continue
        with Heartbeat(ledger, trial):
            if fate == "in-trial" and asked == 2:
                print(f"holding {trial.number}", flush=True)
                time.sleep(600)
            accuracy = (trial.point[0] + 0.5) / 100
            ledger.report_rung(trial, Rung(epochs=1, accuracy=accuracy))
            with journal.open("a") as file:
                print(json.dumps({"number": trial.number, "accuracy": accuracy}), file=file, flush=True)
            if fate == "unheard" and asked == 2:
                ledger.close()
                Ledger.deliver = lambda *_: die()
            outcome = Outcome(
                number=trial.number,
                claim=trial.claim,
                owner=name,
                state="done",
                measures=Measures(accuracy=accuracy),
            )
            outbox.send(ledger, outcome)

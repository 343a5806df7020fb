"""Optuna's copy of a study, and the dashboard on it."""

import json
import warnings

import pytest

from effnet.errors import UserError
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.objective import Objective, objective_from_text
from effnet.search.optuna_export import export_to_optuna
from effnet.search.points import Variable
from effnet.search.records import Candidate, Rung

optuna = pytest.importorskip("optuna", reason="Optuna is not installed (extra optuna)")

VARIABLES = (
    Variable(name="stage1.operation", values=("mbconv", "fused_mbconv")),
    Variable(name="stage1.kernel_size", values=(3, 5)),
    Variable(name="stage1.residual", values=(False, True)),
)
REWARD = Objective()
MEASURES = Measures(accuracy=0.5, step_ms=2.0, params=100, macs=1000)


@pytest.fixture
def ledger(tmp_path):
    points = iter([(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 0, 1)])
    with Ledger.open(f"sqlite:///{tmp_path / 'study.db'}", {"seed": 1}, {}) as opened:
        for _ in range(5):
            opened.ask(lambda history: Candidate(point=next(points), spec="{}"), "a")
        done, stopped, failed, rejected, _ = opened.trials()
        opened.report_rung(done, Rung(epochs=0.5, accuracy=0.25))
        opened.report_rung(stopped, Rung(epochs=0.5, accuracy=0.125))
        opened.finish(done, "done", MEASURES)
        opened.finish(stopped, "stopped", Measures(accuracy=0.125, params=100), "2nd of 2")
        opened.finish(failed, "failed", reason="out of memory")
        opened.finish(rejected, "rejected", reason="too slow")
        yield opened


def export(ledger: Ledger, url: str, objective: Objective = REWARD, name: str = "flowers") -> int:
    return export_to_optuna(ledger, url, name=name, variables=VARIABLES, objective=objective)


def test_trials_that_have_ended_are_copied_with_all_that_is_known(tmp_path, ledger):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    assert export(ledger, url) == 4

    done, stopped, failed, rejected = optuna.load_study(study_name="flowers", storage=url).trials

    states = optuna.trial.TrialState
    assert [trial.state for trial in (done, stopped, failed, rejected)] == [
        states.COMPLETE,
        states.PRUNED,
        states.FAIL,
        states.FAIL,
    ]
    assert done.params == {
        "stage1.operation": "mbconv",
        "stage1.kernel_size": 3,
        "stage1.residual": False,
    }
    assert done.value == pytest.approx(0.5 * 2.0**-0.07 * 100**-0.05)
    assert done.intermediate_values == {1: 0.25}
    assert done.user_attrs["macs"] == 1000
    assert stopped.intermediate_values == {1: 0.125}
    assert (failed.user_attrs["number"], failed.user_attrs["reason"]) == (2, "out of memory")
    assert done.duration.total_seconds() == pytest.approx(ledger.trials()[0].seconds, abs=1e-3)


def test_a_front_is_copied_in_its_own_units(tmp_path, ledger):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    export(ledger, url, objective_from_text("pareto:accuracy,step_ms"))

    study = optuna.load_study(study_name="flowers", storage=url)

    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.values for trial in study.best_trials] == [[0.5, 2.0]]


def test_what_was_copied_is_not_copied_again_and_may_lie_beside_the_ledger(database_url):
    with Ledger.open(database_url, {}, {}) as ledger:
        for point in [(0, 0, 0), (1, 0, 0)]:
            trial = ledger.ask(lambda history, point=point: Candidate(point=point, spec="{}"), "a")
            ledger.finish(trial, "done", MEASURES)
            assert export(ledger, database_url) == 1
        assert export(ledger, database_url) == 0
        assert len(ledger.trials()) == 2


def test_the_copy_of_another_study_is_not_mixed_with_this_one(tmp_path, ledger):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    export(ledger, url)
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}", {"seed": 2}, {}) as other:
        with pytest.raises(UserError, match="has another study 'flowers'; give another name"):
            export(other, url)
        assert export(other, url, name="trees") == 0


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, ledger):
    with pytest.raises(
        UserError, match=r"cannot write Optuna's copy to sqlite:///.*: unable to open"
    ) as raised:
        export(ledger, f"sqlite:///{tmp_path}/no/optuna.db")
    assert "\n" not in str(raised.value)


def test_optuna_is_an_extra(tmp_path, ledger, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'effnet\[optuna\]'"):
        export(ledger, f"sqlite:///{tmp_path / 'optuna.db'}")


def test_the_dashboard_shows_the_study(tmp_path, ledger):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    export(ledger, url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dashboard = pytest.importorskip("optuna_dashboard").wsgi(url)

        def get(path: str) -> dict:
            statuses = []
            environment = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0"}
            body = dashboard(environment, lambda status, headers, *_: statuses.append(status))
            assert statuses == ["200 OK"]
            return json.loads(b"".join(body))

        [summary] = get("/api/studies")["study_summaries"]
        detail = get(f"/api/studies/{summary['study_id']}")
    assert summary["study_name"] == "flowers"
    assert [trial["state"] for trial in detail["trials"]] == ["Complete", "Pruned", "Fail", "Fail"]

"""The table, its spread, and the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from effnet.ablation.plot import plot_report
from effnet.ablation.report import Measured, build_report, percent, spread
from effnet.ablation.runner import read_trials

ENVIRONMENT = {"cpu_model": "an abacus", "devices": [], "torch": "2", "git_commit": "abc"}


def result(top1, *, seconds=10.0, images=1000, macs=2 * 10**12):
    return {"val_top1": top1, "step_seconds": seconds, "images": images, "macs": macs}


def ended(trial, **how):
    return replace(trial, planned=replace(trial.planned, **how))


@pytest.fixture
def report(study):
    """Three seeds of the first two cells; the third failed once, and the others have not been run."""
    made = study(seeds=3)
    trials = read_trials(made)
    for seed, top1 in enumerate((0.70, 0.72, 0.74)):
        trials[seed] = ended(trials[seed], result=result(top1))
        trials[3 + seed] = ended(trials[3 + seed], result=result(top1 + 0.01, seconds=8.0, macs=10**12))
    trials[6] = ended(trials[6], failure="no room")
    return build_report(made, trials, ENVIRONMENT)


def test_mean_and_sample_standard_deviation():
    measured = Measured(values=(1.0, 2.0, 4.0))
    assert measured.mean == pytest.approx(7 / 3)
    assert measured.std == pytest.approx((7 / 3) ** 0.5)
    assert Measured(values=(1.0,)).std is None
    assert percent(0.843, 0.0014, digits=1) == "84.3 ± 0.14 %"
    assert percent(0.5, None) == "50.00 %"
    assert spread(Measured(values=(1.0, 2.0))) == "1.5 ± 0.7"
    assert spread(Measured(values=(1234.4,))) == "1234"


def test_the_table_has_time_arithmetic_and_the_papers_numbers(report):
    rows = [dict(zip(report.columns(), cells, strict=True)) for cells in report.cells()]
    assert rows[1] == {
        "": "progressive resize",
        "top-1": "73.00 ± 2.00 %",
        "seeds": "3",
        "seconds": "8.0 ± 0.0",
        "images/s": "125 ± 0",
        "multiply-adds/image": "1.0 G",
        "x fixed size": "0.50",
        "paper: top-1": "84.3 ± 0.14 %",
    }
    assert rows[0]["paper: top-1"] == ""
    assert [rows[2][name] for name in ("top-1", "seeds", "seconds", "multiply-adds/image")] == [
        "",
        "0",
        "",
        "",
    ]


def test_json_has_every_run_and_every_setting(report):
    data = report.to_dict()
    assert data["rows"][0]["top1"] == {
        "mean": pytest.approx(0.72),
        "std": pytest.approx(0.02),
        "values": [0.70, 0.72, 0.74],
    }
    assert data["rows"][1]["settings"] == ["progressive.coupled=[]"]
    assert data["rows"][1]["paper"] == {"top1": 0.843, "top1_std": 0.0014}
    assert data["rows"][2]["runs"][0]["failure"] == "no room"
    assert [trial.failure for trial in report.failures] == ["no room"]


def test_markdown_says_what_failed_where_it_ran_and_how_to_repeat_it(report):
    text = report.to_markdown()
    assert "| progressive resize | 73.00 ± 2.00 % |" in text
    assert "- progressive resize, adaptive: failed (no room), not run, not run" in text
    assert "an abacus, no GPU" in text
    assert "effnet train digits --recipe ablation.small --out" in text
    assert "--set 'progressive.coupled=[]' --set train.seed=0" in text


def test_a_picture_of_dots_grows_with_the_cells_that_have_results(report, tmp_path):
    plot_report(report, tmp_path / "two.png")
    plot_report(replace(report, rows=report.rows[:1]), tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.height > one.height
        assert two.width == 1575


def test_the_papers_time_and_arithmetic_stand_beside_its_accuracy_where_it_has_them(study):
    made = study("table10")
    report = build_report(made, read_trials(made), ENVIRONMENT)
    rows = [dict(zip(report.columns(), cells, strict=True)) for cells in report.cells()]
    assert [{key: row[key] for key in row if key.startswith("paper")} for row in rows] == [
        {"paper: top-1": "85.0 %", "paper: hours": "54", "paper: multiply-adds": "38 G"},
        {"paper: top-1": "85.1 %", "paper: hours": "13", "paper: multiply-adds": "24 G"},
    ]
    assert percent(0.8324, None, digits=2) == "83.24 %"


@pytest.mark.parametrize("name", ["table5", "table14", "fig-scaling"])
def test_a_picture_of_lines_has_a_panel_for_the_paper(study, tmp_path, name):
    made = study(name, seeds=2)
    trials = [
        ended(trial, result=result(0.6 + 0.01 * index % 0.1, macs=10**9 * (1 + index)))
        for index, trial in enumerate(read_trials(made))
    ]
    plot_report(build_report(made, trials, ENVIRONMENT), tmp_path / "lines.png")
    with Image.open(tmp_path / "lines.png") as picture:
        assert picture.width == 1500

import json
import shutil

import pytest


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_the_report_is_written_into_the_run(effnet, run):
    answer = effnet("report", run, "--device", "cpu")
    assert answer.code == 0
    assert answer.out.startswith(f"report: {run / 'report.html'} (")
    assert "run: its answers" in answer.err
    assert "Worst mistakes" in (run / "report.html").read_text()


def test_the_report_as_json_says_what_is_missing(effnet, run, tmp_path):
    (run / "checkpoints" / "best.safetensors").unlink()
    out = tmp_path / "page.html"
    answer = effnet("report", run, "--out", out, "--quiet", "--json")
    assert answer.err == ""
    found = json.loads(answer.out)
    assert found["bytes"] == out.stat().st_size
    assert found["report"] == str(out)
    assert found["missing"] == ["run: it has not been evaluated in training yet, so it has no weights to ask"]


@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_folder_without_a_run_is_one_sentence(mistake, tmp_path, command):
    assert f"{tmp_path} holds no run" in mistake(command, tmp_path)


def test_a_page_that_cannot_be_written_is_refused_before_the_work(mistake, run, tmp_path):
    assert "--out must be a file in a folder that exists" in mistake(
        "report", run, "--out", tmp_path / "no" / "x.html"
    )
    assert "--out must be a file" in mistake("report", run, "--out", tmp_path)


def test_compare_prints_a_column_a_run_and_a_test(effnet, run, finished):
    answer = effnet("compare", run, finished, "--device", "cpu", "--quiet")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].split() == ["run", "run", "finished"]
    assert any(line.startswith("top-1") for line in lines)
    assert any(line.startswith("run minus finished: +0.0 points of top-1") for line in lines)
    assert "p = 1" in answer.out
    assert "different:" not in answer.out


def test_compare_prints_a_line_a_run_where_they_are_many(effnet, run, tmp_path):
    runs = [shutil.copytree(run, tmp_path / f"run{number}") for number in range(5)]
    answer = effnet("compare", *runs, "--no-evaluate", "--sort", "top1")
    assert answer.err == ""
    assert answer.out.splitlines()[0].split()[:3] == ["run", "network", "recipe"]
    assert len(answer.out.splitlines()) == 6


def test_compare_as_json_has_everything(effnet, run, finished):
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("\nseed = 0", "\nseed = 3", 1))
    found = json.loads(effnet("compare", finished, run, "--device", "cpu", "--quiet", "--json").out)
    assert [one["name"] for one in found["runs"]] == ["finished", "run"]
    assert found["differences"] == {"train.seed": {"finished": "0", "run": "3"}}
    assert found["pairs"][0]["p_value"] == 1.0


def test_compare_says_what_differs_by_its_value(effnet, run, finished):
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("\nseed = 0", "\nseed = 3", 1))
    out = effnet("compare", finished, run, "--no-evaluate").out
    assert "train.seed: 0 (finished); 3 (run)" in out


def test_an_unknown_column_is_one_sentence(mistake, run):
    assert "rows cannot be sorted by 'speed'" in mistake("compare", run, "--sort", "speed")

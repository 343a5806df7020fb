"""A grid is trained run by run, and its table keeps whatever was tried."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from effnet import runs
from effnet.api import configure
from effnet.arch import load_spec, network, scale, spec_to_json
from effnet.errors import UserError
from effnet.search.grid import grid_points, spread_points
from effnet.search.grid_runs import GridStudy, best_row, run_grid, sized_base

PRETENDER = """
import json, pathlib, sys

arguments = sys.argv[1:]
run = pathlib.Path(arguments[arguments.index("--out") + 1])
if (run.parent / "fails").exists():
    sys.exit("effnet: no room")
run.mkdir(parents=True)
settings = dict(item.split("=", 1) for item in arguments if "=" in item)
spec = json.loads(pathlib.Path(settings["model.network"]).read_text())
print(json.dumps({"val_top1": spec["image_size"] / 100, "settings": settings}))
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    script = tmp_path / "pretender.py"
    script.write_text(PRETENDER)
    monkeypatch.setattr(runs, "_EFFNET", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(runs, "_POLL_SECONDS", 0.01)
    path = tmp_path / "small.json"
    path.write_text(spec_to_json(scale(network("v2-b0.stride8"), width=0.25, depth=0.35)))
    config = configure(
        "digits", recipe="demo", model=path, changes=["progressive.image_size=[16,32]", "train.epochs=1"]
    )
    base = sized_base(config)
    points = tuple(spread_points(grid_points(base, step=0.25, tolerance=0.3), 3))
    return GridStudy(base=base, config=config, points=points, out=tmp_path / "grid", seeds=2, jobs=2)


def test_the_best_is_first_behind_the_base_and_the_table_is_kept(study):
    rows = run_grid(study, lambda text: None)
    assert rows[0].name == "base"
    assert rows[0].top1 == 0.32
    best = best_row(rows)
    assert best == rows[1]
    assert best.point.spec.image_size == max(point.spec.image_size for point in study.points)
    table = json.loads((study.out / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == [row.name for row in rows]
    assert table["rows"][1]["gamma"] == best.point.compound.gamma
    assert (study.out / "table.md").read_text().count("\n| ") == len(rows) + 2
    settings = best.runs[1].result["settings"]
    size = best.point.spec.train_size
    assert settings["progressive.image_size"] == f"[{round(16 * size / 32)},{size}]"
    assert (settings["evaluate.image_size"], settings["train.seed"]) == (str(size), "1")
    assert load_spec(str(study.out / "specs" / f"{best.name}.json")) == best.point.spec


def test_what_is_done_is_not_done_again_and_what_failed_is(study):
    name = study.points[1].name
    (study.out / name).mkdir(parents=True)
    (study.out / name / "fails").touch()
    rows = run_grid(study, lambda text: None)
    (failed,) = (row for row in rows if row.name == name)
    assert rows[-1] == failed
    assert failed.top1 is None
    assert "no room; see" in failed.failures[0]
    (study.out / name / "fails").unlink()
    told = []
    rows = run_grid(replace(study, jobs=1), told.append)
    assert [text.split(",")[0] for text in told] == [name] * 4
    assert not any(row.failures for row in rows)
    assert all(row.top1 for row in rows)


def test_a_folder_of_another_grid_is_left_alone(study):
    run_grid(study, lambda text: None)
    with pytest.raises(UserError, match="begun with other settings"):
        run_grid(replace(study, points=study.points[:2]), lambda text: None)


def test_the_base_has_the_sizes_of_its_training(study):
    assert (study.base.train_size, study.base.image_size) == (32, 32)

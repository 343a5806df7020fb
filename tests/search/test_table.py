import csv
import itertools
import json
import math
from pathlib import Path
from random import Random

import pytest

from effnet.errors import UserError
from effnet.search.objective import Objective
from effnet.search.table import read_table

SHARED = Path(__file__).parents[3] / "shared" / "data" / "nas"
needs_tables = pytest.mark.skipif(not SHARED.is_dir(), reason="the tables of networks are not there")
V2 = Objective()


def _score(measures):
    return V2.scores(measures)[0]


def _complete(path):
    rows = {
        "".join(map(str, point)): {
            "test_top1_percent": [60 + 3 * sum(point), 61 + 3 * sum(point), 62 + 3 * sum(point)],
            "params": 1000 * (1 + point[0]),
            "macs": 10**6 * (1 + sum(point)),
        }
        for point in itertools.product(range(3), repeat=3)
    }
    path.write_text(json.dumps(rows))
    return path


def _stages(path):
    """Two stages of expansion, kernel, repeats; parameters multiply within a stage; one machine stalled."""
    columns = [f"block{stage}_{choice}" for stage in range(2) for choice in ("e", "k", "l")]
    grid = list(itertools.product((1, 4, 6), (3, 5), (1, 2)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "top1_percent", "train_seconds", "mmacs", "mparams"])
        for number, (first, second) in enumerate(itertools.product(grid, grid)):
            top1 = 50 + first[0] + 2 * second[0] - first[1] + 0.1 * first[0] * second[2]
            seconds = 100 * math.exp(0.1 * first[0] + 0.05 * second[2])
            mparams = math.prod(first) / 100 + math.prod(second) / 50
            writer.writerow(
                [*first, *second, top1, seconds * (9 if number == 40 else 1), 3 * mparams, mparams]
            )
    return path


def test_a_complete_table_knows_its_networks(tmp_path):
    table = read_table(_complete(tmp_path / "all.json"))
    assert [variable.name for variable in table.variables] == [
        f"layer{index}.operation" for index in (1, 2, 3)
    ]
    (truth,) = table.truths([(1, 0, 2)])
    assert truth.accuracy == pytest.approx(0.70)
    assert (truth.params, truth.macs, truth.step_ms) == (2000, 4_000_000, 4e6)
    seen = {table.observe((1, 0, 2), Random(seed)).accuracy for seed in range(30)}
    assert seen == {0.69, 0.70, 0.71}


def test_the_optimum_is_the_best_of_all(tmp_path):
    table = read_table(_complete(tmp_path / "all.json"))
    best = max(table.rows, key=lambda point: _score(table.truths([point])[0]))
    assert table.optimum(_score) == best


def test_a_surrogate_gives_the_measures_back(tmp_path):
    table = read_table(_stages(tmp_path / "some.csv"))
    assert table.variables[0].name == "stage1.expand_ratio"
    assert table.variables[5].values == (1, 2)
    (truth,) = table.truths([(1, 1, 0, 2, 0, 1)])
    assert truth.accuracy == pytest.approx((50 + 4 + 12 - 5 + 0.8) / 100, abs=0.012)
    assert truth.step_ms == pytest.approx(100 * math.exp(0.5), rel=0.06)
    assert truth.params == 4 * 5 * 1 * 10_000 + 6 * 3 * 2 * 20_000
    assert truth.macs == 3 * truth.params


def test_observations_scatter_as_trainings_do(tmp_path):
    table = read_table(_stages(tmp_path / "some.csv"))
    point = (1, 1, 0, 2, 0, 1)
    (truth,) = table.truths([point])
    seen = [table.observe(point, Random(seed)) for seed in range(400)]
    errors = [100 * (one.accuracy - truth.accuracy) for one in seen]
    times = [math.log(one.step_ms / truth.step_ms) for one in seen]
    assert math.sqrt(sum(error**2 for error in errors) / 400) == pytest.approx(0.256, rel=0.15)
    assert math.sqrt(sum(error**2 for error in times) / 400) == pytest.approx(0.041, rel=0.15)
    assert {one.params for one in seen} == {truth.params}


def test_the_optimum_of_a_surrogate_is_that_of_its_grid(tmp_path):
    table = read_table(_stages(tmp_path / "some.csv"))
    grid = list(itertools.product(*(range(len(variable.values)) for variable in table.variables)))
    scores = [_score(measures) for measures in table.truths(grid)]
    assert table.optimum(_score) == grid[scores.index(max(scores))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{}"),
        ("a.json", "[1, 2]"),
        ("a.json", '{"00": {"test_top1_percent": [1], "params": 1, "macs": 1}, "11": 3}'),
        ("a.csv", "block0_e,top1_percent\n1,2\n"),
        ("a.csv", ""),
        ("a.txt", "hello"),
    ],
)
def test_what_is_no_table_is_refused(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(
        UserError, match=r"is no table of networks: give a JSON file of networks by their choices"
    ):
        read_table(tmp_path / name)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^the table '.*none\.json' cannot be read: .*No such file"):
        read_table(tmp_path / "none.json")


@needs_tables
def test_the_cifar_table_has_its_published_optima():
    """NAS-Bench-Macro's best accuracy is 93.127 % of network 22212202; with V2's reward 89.2 % at 27 M."""
    table = read_table(SHARED / "nas-bench-macro.json")
    most = table.optimum(lambda measures: measures.accuracy)
    assert most == (2, 2, 2, 1, 2, 2, 0, 2)
    (truth,) = table.truths([most])
    assert truth.accuracy == pytest.approx(0.93127, abs=5e-6)
    (best,) = table.truths([table.optimum(_score)])
    assert round(100 * best.accuracy, 2) == 89.21
    assert round(best.macs / 1e6) == 27
    # By hand from the file's row of 11100100.
    assert V2.reward(best) == pytest.approx(0.8921333 * 27417088**-0.07 * 574346**-0.05, rel=1e-6)


@needs_tables
def test_the_imagenet_surrogate_agrees_with_what_was_trained():
    path = SHARED / "accel-nasbench.csv"
    table = read_table(path)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))[::50]
    columns = [column for column in lines[0] if column.startswith("block")]
    points = [
        tuple(
            variable.values.index(int(line[column]))
            for column, variable in zip(columns, table.variables, strict=True)
        )
        for line in lines
    ]
    for line, truth in zip(lines, table.truths(points), strict=True):
        assert truth.params == pytest.approx(1e6 * float(line["mparams"]), rel=1e-5)
        assert truth.macs == pytest.approx(1e6 * float(line["mmacs"]), rel=1e-5)
        assert 100 * truth.accuracy == pytest.approx(float(line["top1_percent"]), abs=3.0)

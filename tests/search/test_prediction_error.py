"""Errors of predictions, and tables of training times, on made-up ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest

from effnet.arch import network
from effnet.arch.accounting import network_cost
from effnet.errors import UserError
from effnet.search.prediction_error import prediction_error, table_error, training_times
from effnet.search.predictor import Measured

B0 = network("v1-b0")


@pytest.fixture(autouse=True)
def few_splits(monkeypatch):
    monkeypatch.setattr("effnet.search.prediction_error.SPLITS", 5)


KEYS = [f"block{index}_{key}" for index, key in product(range(7), ("e", "k", "l", "se"))]


def write(path, rows):
    lines = [",".join([*KEYS, "train_seconds"]), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def row(seed: int) -> list[float]:
    """A network whose training takes a second for 10^5 multiply-adds."""
    draws = Random(seed)
    choices = [draws.choice(values) for _ in range(7) for values in ((1, 4, 6), (3, 5), (1, 2, 3), (0, 1))]
    stages = tuple(
        replace(
            stage,
            expand_ratio=choices[4 * index],
            kernel_size=choices[4 * index + 1],
            repeats=choices[4 * index + 2],
            se_ratio=0.25 * choices[4 * index + 3],
        )
        for index, stage in enumerate(B0.stages)
    )
    return [*choices, network_cost(replace(B0, stages=stages), 224).macs / 1e5]


def test_a_table_is_read_as_networks_of_v1_b0(tmp_path):
    (only,) = training_times(write(tmp_path / "table.csv", [[6, 5, 3, 1] * 7 + [1234.5]]))
    assert only.cost == 1234.5
    assert {(s.expand_ratio, s.kernel_size, s.repeats, s.se_ratio) for s in only.spec.stages} == {
        (6, 5, 3, 0.25)
    }
    assert [s.channels for s in only.spec.stages] == [s.channels for s in B0.stages]


def test_times_that_follow_from_the_network_are_predicted(tmp_path):
    table = training_times(write(tmp_path / "table.csv", [row(seed) for seed in range(60)]))
    error = table_error(table, fitted=30)
    assert (error.fitted, error.held_out) == (30, 30)
    assert error.nine_of_ten.mean < 0.02
    assert error.rank.mean > 0.99
    assert error.median_of_macs.mean == pytest.approx(0.0, abs=1e-9)


def test_noise_is_told_as_error(tmp_path):
    draws = Random(0)
    table = training_times(write(tmp_path / "table.csv", [row(seed) for seed in range(80)]))
    noisy = [Measured(spec=one.spec, cost=one.cost * draws.lognormvariate(0.0, 0.1)) for one in table]
    error = prediction_error(noisy, 224, 1, fitted=40)
    # Half of all normal values are within 0.67 standard deviations.
    assert error.median.mean == pytest.approx(0.067, rel=0.35)
    # Nine rates fit a dozen better than they foretell the others.
    assert prediction_error(noisy, 224, 1, fitted=12).median.mean > 0.06
    assert error.median.spread > 0
    assert error.median.mean < error.mean.mean < error.nine_of_ten.mean


def test_what_is_no_table_is_named(tmp_path):
    with pytest.raises(UserError, match=r"the table '.*nowhere.csv' cannot be read"):
        training_times(tmp_path / "nowhere.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"is no table of Accel-NASBench.*block0_e"):
        training_times(other)

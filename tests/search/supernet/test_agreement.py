"""Kendall's tau, its interval, and what is said of it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from effnet.errors import UserError
from effnet.search.supernet.agreement import Agreement, agreement, resampled_tau


def counted_tau(first: list[float], second: list[float]) -> float:
    """Tau without ties, by its definition: pairs in the same order less those in the other, of all."""
    pairs = list(combinations(range(len(first)), 2))
    signs = [np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in pairs]
    return float(sum(signs)) / len(pairs)


def test_tau_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    true = list(rng.normal(size=12))
    predicted = list(np.array(true) + rng.normal(size=12))
    found = agreement(predicted, true)
    assert found.tau == pytest.approx(counted_tau(predicted, true))
    assert found.low < found.tau < found.high
    assert found.networks == 12


def test_resampled_lists_have_the_tau_that_scipy_gives_them():
    rng = np.random.default_rng(4)
    pairs = np.stack([rng.normal(size=9), rng.integers(4, size=9).astype(float)])
    times = rng.multinomial(9, [1 / 9] * 9, 20)
    expected = [kendalltau(*np.repeat(pairs, row, axis=1)).statistic for row in times]
    np.testing.assert_allclose(resampled_tau(pairs, times), expected)


def test_the_same_and_the_reverse_order():
    numbers = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    same, reverse = agreement(numbers, numbers), agreement(numbers, numbers[::-1])
    assert (same.tau, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    assert reverse.tau == pytest.approx(-1.0)


def test_a_constant_list_agrees_with_nothing():
    found = agreement([0.5] * 6, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (found.tau, found.low, found.high) == (0.0, 0.0, 0.0)
    assert not found.is_believable()


def test_the_interval_is_that_of_its_seed_and_narrows_with_more_networks():
    rng = np.random.default_rng(1)

    def drawn(number: int) -> tuple[list[float], list[float]]:
        true = rng.normal(size=number)
        return list(true + rng.normal(size=number)), list(true)

    few, many = drawn(10), drawn(100)
    assert agreement(*few) == agreement(*few)
    widths = [found.high - found.low for found in (agreement(*few), agreement(*many))]
    assert widths[1] < widths[0] / 2


def test_the_verdict_says_plainly_what_follows():
    good = Agreement(networks=20, tau=0.71, low=0.5, high=0.85)
    assert good.verdict() == (
        "Kendall tau 0.71 (95 % interval 0.50 to 0.85, 20 networks): the ranking can be used"
    )
    low = Agreement(networks=20, tau=0.31, low=0.02, high=0.55)
    assert low.verdict() == (
        "Kendall tau 0.31 (95 % interval 0.02 to 0.55, 20 networks): the ranking is NOT to be believed, tau "
        "is below 0.5; train the supernet longer, or search without one"
    )
    wide = Agreement(networks=5, tau=0.6, low=-0.2, high=1.0)
    assert "NOT to be believed, the interval reaches down to 0" in wide.verdict()
    assert low.is_believable(0.3)
    assert "can be used" in low.verdict(0.3)


def test_too_few_networks_check_nothing():
    with pytest.raises(UserError) as caught:
        agreement([1.0, 2.0], [1.0, 2.0])
    assert str(caught.value) == "a ranking is checked with at least 5 networks, got 2"

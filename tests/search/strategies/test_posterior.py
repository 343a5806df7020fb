import itertools

import numpy as np
import pytest

from effnet.search.points import Variable
from effnet.search.strategies.pairwise import Layout, PairwiseFunction
from effnet.search.strategies.posterior import PairwisePosterior
from effnet.search.strategies.thompson import climb

VARIABLES = tuple(Variable(f"v{index}", tuple(range(size))) for index, size in enumerate((3, 2, 4)))
LAYOUT = Layout.of(VARIABLES)
POINTS = list(itertools.product(range(3), range(2), range(4)))


def _random_function(seed):
    generator, count = np.random.default_rng(seed), len(LAYOUT.variable_of)
    pairs = generator.standard_normal((count, count))
    pairs = (pairs + pairs.T) * (LAYOUT.variable_of[:, None] != LAYOUT.variable_of[None, :])
    return PairwiseFunction(LAYOUT, 0.5, generator.standard_normal(count), pairs)


def test_a_pairwise_function_is_its_sums():
    function = _random_function(0)
    for point in POINTS:
        chosen = [int(start) + value for start, value in zip(LAYOUT.starts, point, strict=True)]
        expected = 0.5 + sum(function.single[chosen])
        expected += sum(2 * function.pairs[a, b] for a, b in itertools.combinations(chosen, 2))
        assert function.values([point])[0] == pytest.approx(expected)


def test_gains_are_differences_of_values():
    function, point = _random_function(1), (1, 0, 2)
    for position, gain in enumerate(function.gains(point)):
        changed = list(point)
        variable = LAYOUT.variable_of[position]
        changed[variable] = position - int(LAYOUT.starts[variable])
        assert gain == pytest.approx(function.values([tuple(changed)])[0] - function.values([point])[0])


def test_the_mean_is_that_of_bayesian_ridge_regression():
    """Written out with all products of one-hot columns, which the kernel stands for."""
    generator = np.random.default_rng(0)
    points, targets = POINTS[::2], generator.standard_normal(len(POINTS[::2]))
    marks = LAYOUT.one_hot(POINTS)
    products = [
        marks[:, a] * marks[:, b]
        for a, b in itertools.combinations(range(9), 2)
        if LAYOUT.variable_of[a] != LAYOUT.variable_of[b]
    ]
    # Prior variances 1, 1 / 3 variables and 0.1 / 3 pairs of variables; variance of the noise 0.1.
    features = np.hstack([np.ones((24, 1)), marks * np.sqrt(1 / 3), np.stack(products, 1) * np.sqrt(0.1 / 3)])
    known = features[::2]
    weights = np.linalg.solve(known.T @ known + 0.1 * np.eye(known.shape[1]), known.T @ targets)
    found = PairwisePosterior(LAYOUT).mean(points, targets).values(POINTS)
    np.testing.assert_allclose(found, features @ weights, atol=1e-9)


def test_draws_scatter_around_the_mean_as_the_posterior_does():
    generator = np.random.default_rng(0)
    points, targets = POINTS[:5], generator.standard_normal(5)
    posterior = PairwisePosterior(LAYOUT)
    draws = np.stack([posterior.draw(points, targets, generator).values(POINTS) for _ in range(1000)])
    np.testing.assert_allclose(draws.mean(0), posterior.mean(points, targets).values(POINTS), atol=0.15)
    marks = LAYOUT.one_hot(POINTS)
    equal = marks @ marks.T
    kernel = 1.0 + equal / 3 + 0.1 / 3 * equal * (equal - 1) / 2
    known = kernel[:5]
    expected = kernel - known.T @ np.linalg.solve(kernel[:5, :5] + 0.1 * np.eye(5), known)
    np.testing.assert_allclose(draws.var(0), np.diag(expected), atol=0.2)


def test_kept_work_changes_no_bit():
    generator = np.random.default_rng(0)
    variables = tuple(Variable(f"v{index}", tuple(range(3))) for index in range(9))
    layout = Layout.of(variables)
    points = [tuple(map(int, row)) for row in generator.integers(0, 3, (150, 9))]
    targets, kept = generator.standard_normal(150), PairwisePosterior(layout)
    for count in (3, 31, 32, 33, 100, 70, 150):
        # The fortieth is another one than the last time.
        points[40] = tuple((value + 1) % 3 for value in points[40])
        ours = kept.mean(points[:count], targets[:count])
        anew = PairwisePosterior(layout).mean(points[:count], targets[:count])
        np.testing.assert_array_equal(ours.single, anew.single)
        np.testing.assert_array_equal(ours.pairs, anew.pairs)


class Grid:
    variables = VARIABLES

    def __init__(self, forbidden=()):
        self.forbidden = forbidden

    def canonical(self, point):
        return point

    def is_feasible(self, point):
        return point not in self.forbidden


@pytest.mark.parametrize("seed", range(5))
def test_climbing_ends_where_no_single_change_gains(seed):
    function = _random_function(seed)
    top = climb(Grid(), function, (0, 0, 0))
    assert function.gains(top).max() <= 1e-9
    assert function.values([top])[0] >= function.values([(0, 0, 0)])[0]


def test_climbing_goes_around_what_is_forbidden():
    function = _random_function(3)
    top = climb(Grid(), function, (0, 0, 0))
    other = climb(Grid(forbidden=(top,)), function, (0, 0, 0))
    assert other != top

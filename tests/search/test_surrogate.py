import itertools

import numpy as np
import pytest

from effnet.search.points import Variable
from effnet.search.strategies.pairwise import Layout
from effnet.search.surrogate import fit_groups, fit_pairwise, without_outliers

LAYOUT = Layout.of([Variable(f"v{index}", tuple(range(size))) for index, size in enumerate((3, 2, 4, 3))])
POINTS = np.array(list(itertools.product(range(3), range(2), range(4), range(3))))


def test_a_stalled_machine_is_pulled_to_what_the_others_say():
    additive = 0.3 * POINTS[:, 0] + 0.1 * POINTS[:, 2] - 0.2 * POINTS[:, 3]
    measured = additive.copy()
    measured[[7, 40]] += 2.5
    kept = without_outliers(LAYOUT, POINTS, measured, limit=0.2)
    np.testing.assert_allclose(kept[[7, 40]], additive[[7, 40]] + 0.2, atol=0.05)
    np.testing.assert_allclose(np.delete(kept, [7, 40]), np.delete(additive, [7, 40]), atol=1e-12)


def test_two_functions_of_pairs_are_found_together():
    targets = np.stack(
        [1.0 + POINTS[:, 0] * POINTS[:, 2], 5.0 - (POINTS[:, 1] == 1) * (POINTS[:, 3] == 2)], axis=1
    )
    first, second = fit_pairwise(LAYOUT, POINTS, targets, ridge=1e-6)
    np.testing.assert_allclose(first.values(POINTS), targets[:, 0], atol=1e-4)
    np.testing.assert_allclose(second.values(POINTS), targets[:, 1], atol=1e-4)
    assert np.array_equal(first.pairs, first.pairs.T)
    assert first.pairs[0, 1] == 0.0  # two values of one variable


def test_a_sum_over_groups_is_found_where_products_are_within_a_group():
    target = 7.0 * POINTS[:, 0] * POINTS[:, 1] + (1.0 + POINTS[:, 2]) * POINTS[:, 3]
    known = np.arange(len(POINTS)) % 5 != 0
    first, second = fit_groups(POINTS[known], [(0, 1), (2, 3)], target[known])
    for (a, b, c, d), expected in zip(POINTS.tolist(), target, strict=True):
        assert first[a, b] + second[c, d] == pytest.approx(expected)


def test_what_no_point_has_is_missing_from_a_group():
    known = (POINTS[:, 0] != 2) | (POINTS[:, 1] != 1)
    first, _ = fit_groups(POINTS[known], [(0, 1), (2, 3)], np.ones(known.sum()))
    assert (2, 1) not in first
    assert len(first) == 5

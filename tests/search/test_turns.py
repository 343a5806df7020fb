"""Comparisons in turns, on a made-up machine that stalls, drifts and is noisy."""

from __future__ import annotations

from random import Random

import pytest

from effnet.search.turns import Budget, compare, conclude

TRUE_RATIO = 1.7
DEFAULT = Budget()


class Machine:
    """Its speed is a function of the time; all that is done on it takes longer while it is slow."""

    def __init__(self, seed: int, *, noise: float = 0.02, drift: float = 0.0, stalls: float = 0.0):
        self.now, self.draws = 100.0, Random(seed)
        self.noise, self.drift, self.stalls = noise, drift, stalls
        self.stall_ends, self.times = 0.0, 0

    def slowness(self) -> float:
        """Drift is by a share a second; a stall lasts up to 0.6 s, and is up to 20 times as slow."""
        if self.now >= self.stall_ends and self.draws.random() < self.stalls:
            self.stall_ends = self.now + self.draws.uniform(0.05, 0.6)
            self.factor = self.draws.uniform(3.0, 20.0)
        stalled = self.factor if self.now < self.stall_ends else 1.0
        return stalled * (1 + self.drift * (self.now - 100.0))

    def work(self, seconds: float, cold: float = 0.0):
        """Return what takes so long, and at first longer."""
        waits = [cold]

        def turn(count: int) -> list[float]:
            times = []
            for _ in range(count):
                self.times += 1
                noise = self.draws.lognormvariate(0.0, self.noise)
                took = seconds * self.slowness() * noise + (waits.pop() if waits else 0.0)
                self.now += took
                times.append(took)
            return times

        return turn

    def compared(self, budget: Budget = DEFAULT, *, cold: float = 0.0):
        return compare(
            self.work(0.05 * TRUE_RATIO, cold), self.work(0.05, cold), budget, now=lambda: self.now
        )


@pytest.mark.parametrize(
    "troubles",
    [
        {},
        {"drift": 0.15},
        {"drift": -0.1},
        {"stalls": 0.03},
        {"stalls": 0.03, "drift": 0.15},
    ],
    ids=str,
)
def test_stalls_and_drift_do_not_move_the_ratio_by_three_percent(troubles):
    errors = [abs(Machine(seed, **troubles).compared().ratio / TRUE_RATIO - 1) for seed in range(40)]
    assert max(errors) < 0.03


def test_one_after_the_other_drift_alone_would_move_it_by_more():
    """What this protocol is for."""
    machine = Machine(0, drift=0.15)
    reference, candidate = machine.work(0.05), machine.work(0.05 * TRUE_RATIO)
    one, other = sum(reference(30)), sum(candidate(30))
    assert other / one / TRUE_RATIO > 1.2


def test_the_spread_is_the_error_that_repetitions_have():
    results = [Machine(seed, noise=0.1).compared(Budget(precision=0.0)) for seed in range(60)]
    errors = [(result.ratio / TRUE_RATIO - 1) ** 2 for result in results]
    root_mean_square = (sum(errors) / len(errors)) ** 0.5
    told = sum(result.spread for result in results) / len(results)
    assert told == pytest.approx(root_mean_square, rel=0.5)


def test_it_stops_where_the_ratio_is_known():
    quick, noisy = Machine(0, noise=0.001), Machine(0, noise=0.2)
    assert quick.compared().rounds == 10
    result = noisy.compared(Budget(precision=0.001))
    assert result.rounds + result.dropped > 10
    assert quick.times < noisy.times


@pytest.mark.parametrize("seconds", [1.0, 4.0, 10.0])
def test_the_budget_holds_whatever_is_compiled_at_first(seconds):
    machine = Machine(0, noise=0.2)
    result = machine.compared(Budget(seconds=seconds, precision=0.0), cold=60.0)
    assert result.rounds >= 6
    assert machine.now - 100.0 - 2 * 60.0 < 2 * seconds + 0.5


def test_where_a_single_time_takes_longer_than_the_budget_there_are_three_rounds():
    machine = Machine(0)
    result = compare(machine.work(20.0), machine.work(10.0), Budget(seconds=1.0), now=lambda: machine.now)
    assert result.rounds + result.dropped == 3
    assert result.ratio == pytest.approx(2.0, rel=0.1)


def test_a_ratio_by_hand():
    result = conclude([2.0, 2.2, 2.4], [1.0, 1.02, 1.08, 1.12])
    assert result.ratio == pytest.approx(2.2 / 1.05)
    assert (result.rounds, result.dropped) == (3, 0)
    assert (result.seconds, result.reference_seconds) == (2.2, pytest.approx(1.05))


def test_turns_in_which_the_machine_changed_do_not_count():
    result = conclude([2.0, 9.0, 9.0, 2.0, 2.0], [1.0, 1.0, 9.0, 1.0, 1.0, 1.0])
    assert (result.rounds, result.dropped, result.ratio) == (3, 2, 2.0)


def test_on_a_machine_that_never_is_steady_the_steadier_half_counts():
    result = conclude([2.0, 3.0, 4.0], [1.0, 1.2, 1.8, 4.0])
    assert (result.rounds, result.dropped) == (2, 1)

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.training import stopwatch
from effnet.training.stopwatch import Stopwatch


@given(st.lists(st.floats(-1e9, 1e9), min_size=2))
def test_no_time_is_negative_whatever_the_clock_says(readings):
    times = iter(readings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: next(times)))
        watch = Stopwatch()
        assert all(watch.seconds >= 0 for _ in readings[1:])


def test_a_clock_that_was_set_back_goes_on(monkeypatch):
    times = iter([100.0, 103.0, 40.0, 42.5, 50.0, 51.0])
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: next(times)))
    watch = Stopwatch()
    assert [watch.seconds, watch.seconds, watch.seconds] == [3.0, 0.0, 2.5]
    watch.restart()
    assert watch.seconds == 1.0

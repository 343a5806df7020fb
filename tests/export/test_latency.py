import pytest

from effnet.export import latency
from effnet.export.latency import Latency, take_turns


def test_calls_take_turns_after_three_that_do_not_count(monkeypatch):
    order: list[str] = []
    ticks = iter(range(1000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: float(next(ticks)))
    found = take_turns(
        {name: lambda name=name: order.append(name) for name in ("network", "file")}, turns=2, batch_size=4
    )
    assert order == ["network", "file"] * 5
    assert found["file"] == Latency(batch_size=4, seconds=(1.0, 1.0))


def test_a_ratio_is_the_median_of_the_turns_ratios():
    slow, fast = (Latency(batch_size=1, seconds=seconds) for seconds in ((2.0, 30.0, 8.0), (1.0, 10.0, 2.0)))
    assert fast.speedup_over(slow) == 3.0
    assert fast.median_ms == 2000.0
    assert fast.quantile_ms(0.5) == pytest.approx(2000.0)

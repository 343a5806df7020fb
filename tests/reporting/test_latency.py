import pytest
import torch

from effnet.arch import NetworkSpec, StageSpec
from effnet.reporting import latency
from effnet.reporting.latency import Timed, measure_latencies, ready_fresh

CPU = torch.device("cpu")


def _timed(calls: list, name: str, size: int) -> Timed:
    def forward(pixels):
        calls.append((name, tuple(pixels.shape)))
        return pixels

    return Timed(forward=forward, image_size=size)


def test_networks_take_turns_and_the_first_round_does_not_count(monkeypatch):
    calls: list = []
    seconds = iter([9.0, 9.0, 0.001, 0.1, 0.003, 0.3, 0.002, 0.2, 0.005, 0.5, 0.004, 0.4])

    def time_calls(work, count, device):
        assert (count, device) == (1, CPU)
        work()
        return (next(seconds),)

    monkeypatch.setattr(latency, "time_calls", time_calls)
    networks = {name: _timed(calls, name, size) for name, size in (("a", 8), ("b", 4))}
    found = measure_latencies(networks, device=CPU, images=2, rounds=5)
    assert calls == [("a", (2, 3, 8, 8)), ("b", (2, 3, 4, 4))] * 6
    assert found["a"].median_ms == pytest.approx(3)
    assert (found["b"].low_ms, found["b"].high_ms) == (pytest.approx(200), pytest.approx(400))
    assert (found["a"].images, found["a"].image_size, found["a"].passes) == (2, 8, 5)


def test_nothing_is_measured_where_there_is_nothing():
    assert measure_latencies({}, device=CPU, announce=lambda _: pytest.fail("said something")) == {}


def test_a_network_is_measured_as_it_answers():
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=16, image_size=16, train_size=8,
        in_channels=1,
    )  # fmt: skip
    timed = ready_fresh(spec, CPU)
    assert (timed.image_size, timed.in_channels) == (16, 1)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in timed.forward.modules())
    (found,) = measure_latencies({"tiny": timed}, device=CPU, rounds=1).values()
    assert found.low_ms == found.median_ms == found.high_ms > 0

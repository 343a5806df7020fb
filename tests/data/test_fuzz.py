"""Some hundreds of the damaged files of ``benchmarks/fuzz_decoder.py``; that makes 20,000."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


@pytest.fixture(scope="module")
def fuzz():
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_decoder.py"
    spec = importlib.util.spec_from_file_location("fuzz_decoder", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_decoder"] = module  # Its dataclasses look for their types there.
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_decoder"]


@pytest.mark.parametrize("kind", ["JPEG", "all"])
def test_a_damaged_file_gives_a_picture_or_a_reason(fuzz, kind):
    formats = fuzz.FORMATS if kind == "all" else (kind,)
    outcomes = Counter()
    for number in range(300):
        outcomes[fuzz.outcome(fuzz.damaged_file(1, number, formats), number)] += 1
    assert sum(outcomes.values()) == 300
    assert 30 < outcomes["read"] < 200
    assert outcomes["repaired"] > 3
    assert len(outcomes) > 12
    assert all(len(reason) < 150 for reason in outcomes)


def test_a_file_is_a_function_of_its_number(fuzz):
    files = [fuzz.damaged_file(1, number, fuzz.FORMATS) for number in range(20)]
    assert files == [fuzz.damaged_file(1, number, fuzz.FORMATS) for number in range(20)]
    assert len(set(files)) == 20


def test_undamaged_files_are_read(fuzz):
    for kind in fuzz.FORMATS:
        assert {fuzz.outcome(content, 0) for content in fuzz.seeds(kind)} == {"read"}


def test_trouble_is_told_with_its_number(fuzz, monkeypatch):
    class Report:
        sent = ()

        def send(self, sent):
            self.sent = sent

    class Current:
        value = 0

    def fail_at_3(content, number):
        if number == 3:
            raise ZeroDivisionError("here")
        return "read"

    monkeypatch.setattr(fuzz, "outcome", fail_at_3)
    report, current = Report(), Current()
    fuzz.decode_files(fuzz.Task(1, ("JPEG",), 0, 5), current, report)
    done, outcomes, troubles, resident = report.sent
    assert (done, current.value, outcomes["read"]) == (5, 4, 4)
    assert troubles == ["file 3: ZeroDivisionError: here"]
    assert resident > 10


def test_memory_that_grows_is_noticed(fuzz):
    def grown(resident):
        return fuzz.growth(fuzz.Summary(resident=list(zip(range(0, 1001, 50), resident, strict=True))), 1000)

    assert grown(np.r_[np.linspace(50, 90, 5), np.full(16, 90.0)]) == 0
    assert grown(np.linspace(50, 450, 21)) > fuzz.MOST_GROWTH

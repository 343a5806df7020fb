"""Clocks of training steps."""

from __future__ import annotations

import time

import pytest
import torch

from effnet.training.timing import fair_clock, time_calls

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_one_thread_is_timed_by_what_it_computes(threads):
    threads(1)
    assert fair_clock() is time.process_time
    threads(2)
    assert fair_clock() is time.monotonic
    assert fair_clock(1) is time.process_time


def test_waiting_is_no_work(threads):
    threads(1)
    (computed,) = time_calls(lambda: time.sleep(0.05), 1, CPU, fair_clock())
    (passed,) = time_calls(lambda: time.sleep(0.05), 1, CPU)
    assert computed < 0.05 <= passed


def test_every_call_has_its_time():
    now = iter([1.0, 3.0, 10.0, 15.0])
    assert time_calls(lambda: None, 2, CPU, lambda: next(now)) == (2.0, 5.0)

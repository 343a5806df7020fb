import multiprocessing
import subprocess
import sys
import time

import pytest

from effnet.bench.measure import Timing, can_time_workers, cpu_seconds, take_turns

WORK = 0.2
"""Seconds of CPU time."""


def _work():
    end = time.process_time() + WORK
    while time.process_time() < end:
        pass


def _work_and_wait(done, leave):
    _work()
    done.set()
    leave.wait()


def test_passes_take_turns_after_a_round_that_does_not_count():
    calls = []
    passes = {name: lambda name=name: calls.append(name) or 7 for name in "abc"}
    timings = take_turns(passes, 2)
    assert "".join(calls) == "abc" * 3
    assert [(timing.images, len(timing.rates)) for timing in timings.values()] == [(7, 2)] * 3


def test_rates_are_images_a_second_of_cpu_time():
    def run():
        _work()
        time.sleep(WORK)  # costs nothing
        return 100

    (timing,) = take_turns({"work": run}, 1).values()
    assert timing.median == pytest.approx(100 / WORK, rel=0.1)


def test_ratios_are_taken_round_by_round():
    ours, theirs = Timing(images=1, rates=(10.0, 30.0, 50.0)), Timing(images=1, rates=(5.0, 10.0, 100.0))
    assert ours.median == 30
    assert ours.ratios_to(theirs) == (2, 3, 0.5)


@pytest.mark.skipif(not can_time_workers(), reason="the CPU time of a running process is read on Linux only")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_worker_processes_count_while_they_run_and_afterwards():
    context = multiprocessing.get_context("fork")
    done, leave = context.Event(), context.Event()
    start = cpu_seconds()
    worker = context.Process(target=_work_and_wait, args=(done, leave))
    worker.start()
    done.wait()
    while_running = cpu_seconds() - start
    leave.set()
    worker.join()
    afterwards = cpu_seconds() - start
    assert WORK < while_running < 2 * WORK
    assert while_running <= afterwards < 2 * WORK


PAGE_FAULTS = """
import platform, resource
import numpy as np
from effnet.bench.measure import settle_allocator
if {is_settled}:
    settle_allocator()
def use():
    for image in [np.empty(1 << 20, np.uint8) for _ in range(4)]:
        image.fill(1)
for _ in range(4):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(platform.libc_ver()[0], (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


def test_images_keep_their_memory():
    printed = [
        subprocess.run(
            [sys.executable, "-c", PAGE_FAULTS.format(is_settled=is_settled)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for is_settled in (True, False)
    ]
    (library, settled), (_, unsettled) = printed
    assert int(settled) < 10
    if library == "glibc":
        assert int(unsettled) > 100

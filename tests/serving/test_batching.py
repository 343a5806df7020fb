import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from effnet.serving.batching import Batcher


def batched(scenario, compute, *, max_batch=4, max_wait_s=0.0):
    """Run a scenario with a batcher that runs, and return what it returns."""

    async def main():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(compute, executor=pool, max_batch=max_batch, max_wait_s=max_wait_s)
            task = asyncio.create_task(batcher.run())
            try:
                return await asyncio.wait_for(scenario(batcher), 20)
            finally:
                task.cancel()

    return asyncio.run(main())


class Recorder:
    """Doubles numbers, and remembers the batches; the first one waits until `go`."""

    def __init__(self):
        self.batches, self.go, self.started = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.batches.append(list(items))
        self.started.set()
        self.go.wait(10)
        return [2 * item for item in items]


def test_every_caller_gets_the_answer_to_its_own_item():
    async def scenario(batcher):
        return await asyncio.gather(*(batcher.submit(number) for number in range(50)))

    assert batched(scenario, lambda items: [2 * item for item in items]) == [2 * n for n in range(50)]


def test_what_arrives_during_a_batch_makes_up_the_next_ones():
    compute = Recorder()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit(0))
        while not compute.started.is_set():
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher.submit(number)) for number in range(1, 7)]
        await asyncio.sleep(0)
        assert len(batcher) == 6
        compute.go.set()
        return await asyncio.gather(first, *others)

    assert batched(scenario, compute) == [0, 2, 4, 6, 8, 10, 12]
    assert compute.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_lone_item_does_not_wait_for_others():
    compute = Recorder()
    compute.go.set()
    assert batched(lambda batcher: batcher.submit(3), compute) == 6
    assert compute.batches == [[3]]


def test_a_batch_waits_for_more_when_it_is_told_to():
    compute = Recorder()
    compute.go.set()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        return await asyncio.gather(first, *(batcher.submit(number) for number in (2, 3, 4)))

    assert batched(scenario, compute, max_wait_s=10) == [2, 4, 6, 8]
    assert compute.batches == [[1, 2, 3, 4]]  # A full batch does not wait on.


def test_a_batch_that_stays_small_is_computed_after_the_wait():
    compute = Recorder()
    compute.go.set()
    assert batched(lambda batcher: batcher.submit(1), compute, max_wait_s=0.01) == 2


def test_a_failure_is_told_to_its_own_batch_only():
    def compute(items):
        if 1 in items:
            raise ZeroDivisionError("no")
        return items

    async def scenario(batcher):
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(1)
        return await batcher.submit(2)

    assert batched(scenario, compute, max_batch=1) == 2


def test_a_wrong_number_of_answers_is_a_failure_and_not_silence():
    async def scenario(batcher):
        with pytest.raises(ValueError, match="shorter"):
            await batcher.submit(1)

    batched(scenario, lambda items: [])


def test_an_item_whose_caller_gave_up_is_not_computed():
    compute = Recorder()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit(0))
        while not compute.started.is_set():
            await asyncio.sleep(0.001)
        abandoned, kept = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.sleep(0)
        compute.go.set()
        return await asyncio.gather(first, kept)

    assert batched(scenario, compute) == [0, 4]
    assert compute.batches == [[0], [2]]

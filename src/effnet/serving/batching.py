"""Dynamic batching: what arrives while a batch is being computed makes up the next one.

A lone item is computed at once. Nothing waits for a batch to fill up unless it is told to: under load,
batches fill up by themselves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Batcher(Generic[_Item, _Answer]):
    """Gathers items of many callers and computes them together, one batch at a time, in order.

    Args:
        compute: Answers a batch, in its order; called in a thread of ``executor``.
        executor: Whose thread computes; it may serve several batchers.
        max_batch: Most items of a batch.
        max_wait_s: How long a batch that is not full waits for more items.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[_Item]], Sequence[_Answer]],
        *,
        executor: Executor,
        max_batch: int,
        max_wait_s: float = 0.0,
    ) -> None:
        self._compute = compute
        self._executor = executor
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: deque[tuple[_Item, asyncio.Future[_Answer]]] = deque()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many items wait for a batch."""
        return len(self._waiting)

    async def submit(self, item: _Item) -> _Answer:
        """Return the answer to an item; a caller that is cancelled takes its item out of the queue.

        Raises:
            Exception: What ``compute`` raised for the batch that the item was in.
        """
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._changed.set()
        return await future

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._fill()
            batch = self._take()
            if batch:
                await self._answer(batch)

    async def _fill(self) -> None:
        """Return when there is a batch to compute."""
        while not self._waiting:
            self._changed.clear()
            await self._changed.wait()
        if not self._max_wait_s:
            return
        try:
            async with asyncio.timeout(self._max_wait_s):
                while len(self._waiting) < self._max_batch:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[tuple[_Item, asyncio.Future[_Answer]]]:
        batch: list[tuple[_Item, asyncio.Future[_Answer]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # Nobody waits any more for one that was cancelled.
                batch.append((item, future))
        return batch

    async def _answer(self, batch: list[tuple[_Item, asyncio.Future[_Answer]]]) -> None:
        items, futures = zip(*batch, strict=True)
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(self._executor, self._compute, items)
            pairs = list(zip(futures, answers, strict=True))
        except Exception as error:  # It belongs to those who wait; the next batch is another matter.
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in pairs:
            if not future.done():
                future.set_result(answer)

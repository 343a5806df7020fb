"""From a question to its answers: decoding in threads, batches on the network, classes by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from effnet.config.serve import ServeConfig
from effnet.data.pillow import BadImageError
from effnet.data.threads import thread_count
from effnet.errors import did_you_mean
from effnet.serving.admission import Admission
from effnet.serving.batching import Batcher
from effnet.serving.bodies import Question, Upload
from effnet.serving.metrics import Metrics
from effnet.serving.refusals import RefusalError
from effnet.serving.served import Scores, ServedModel, View

_log = logging.getLogger(__name__)


class Service:
    """Networks under their names, with the threads that decode for them and the one that computes.

    Args:
        models: At least one, with different names; the first is asked where a client names none.
        config: Threads, sizes of batches, limits.
    """

    def __init__(self, models: Sequence[ServedModel], config: ServeConfig) -> None:
        self.models = {model.name: model for model in models}
        self.config = config
        self.admission = Admission(max_images=config.max_queue, max_held_bytes=config.max_held_bytes)
        self.is_draining = False
        self.failure: BaseException | None = None
        """Why the service cannot work at all."""
        self._warm = asyncio.Event()
        self.decoders = ThreadPoolExecutor(
            thread_count(config.decode_threads),
            "effnet-decode",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )
        # One thread for all networks: two forward passes at a time only take the processors from each other.
        self._computer = ThreadPoolExecutor(
            1,
            "effnet-compute",
            initializer=torch.set_num_threads,
            initargs=(thread_count(config.threads),),
        )
        self._batchers: dict[str, Batcher[View, Scores]] = {
            model.name: Batcher(
                self._computing(model),
                executor=self._computer,
                max_batch=config.max_batch,
                max_wait_s=config.max_wait_ms / 1000,
            )
            for model in models
        }
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics = Metrics(
            queue_length=lambda: sum(map(len, self._batchers.values())),
            images_in_service=lambda: self.admission.images,
        )

    @property
    def is_ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self._warm.is_set() and not self.is_draining

    async def start(self) -> None:
        """Begin to compute; `is_ready` once each network has computed a batch of nothing."""
        self._tasks = [asyncio.create_task(batcher.run()) for batcher in self._batchers.values()]
        self._tasks.append(asyncio.create_task(self._warm_up()))

    async def stop(self) -> None:
        """Stop computing; whoever still waits is cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self.decoders, self._computer):
            pool.shutdown(cancel_futures=True)

    def find(self, question: Question) -> ServedModel:
        """Return the network that a client asks for.

        Raises:
            RefusalError: 422: there is none of that name, or it cannot draw heat maps.
        """
        model = self.models.get(question.model or next(iter(self.models)))
        if model is None:
            name = (question.model or "")[:100]
            raise RefusalError(422, f"no network is called '{name}'{did_you_mean(name, self.models)}")
        if question.cam and model.cam_error:
            raise RefusalError(
                422, f"'{model.name}' cannot draw heat maps: {model.cam_error}; leave 'cam' out"
            )
        return model

    async def answer(self, question: Question) -> list[dict[str, Any]]:
        """Return one result for each image, in order; one that cannot be read has an ``error``.

        Raises:
            RefusalError: 422 as of `find`, 429 where too much waits, 503 where it takes too long.
        """
        model = self.find(question)
        with self.admission.admit(len(question.uploads)):
            try:
                async with asyncio.timeout(self.config.answer_timeout_s):
                    await self._warm.wait()
                    answers = (self._answer_one(model, upload, question) for upload in question.uploads)
                    return list(await asyncio.gather(*answers))
            except TimeoutError:
                raise RefusalError(
                    503,
                    f"no answer within {self.config.answer_timeout_s:g} seconds; try again later, "
                    "or with fewer images",
                    retry_after_s=round(self.config.answer_timeout_s),
                ) from None

    async def _answer_one(self, model: ServedModel, upload: Upload, question: Question) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        if upload.error:
            return {"name": upload.name, "error": upload.error}
        try:
            view = await loop.run_in_executor(self.decoders, model.decode, upload.encoded, question.cam)
        except BadImageError as error:
            return {"name": upload.name, "error": error.reason}
        except Exception:  # A decoder's own mistake; no image of a client's may end in a crash.
            _log.exception("a decoder failed")
            return {"name": upload.name, "error": "the image cannot be decoded"}
        scores = await self._batchers[model.name].submit(view)
        result = {"name": upload.name, "classes": _top(scores, model, question.top)}
        if question.cam:
            result["cam"] = await loop.run_in_executor(self.decoders, model.draw_cam, view, scores)
        return result

    async def _warm_up(self) -> None:
        loop, most = asyncio.get_running_loop(), self.config.max_batch
        try:
            for model in self.models.values():
                await loop.run_in_executor(self._computer, model.warm_up, most)
        except Exception as error:  # Whoever runs the service has to know, not a client.
            self.failure = error
        else:
            self._warm.set()

    def _computing(self, model: ServedModel) -> Callable[[Sequence[View]], list[Scores]]:
        def compute(views: Sequence[View]) -> list[Scores]:
            with self.metrics.measure_batch(model.name, len(views)):
                return model.compute(views)

        return compute


def _top(scores: Scores, model: ServedModel, top: int) -> list[dict[str, Any]]:
    names = model.class_names
    best = np.argsort(-scores.probabilities, kind="stable")[:top]
    return [{"name": names[index], "probability": float(scores.probabilities[index])} for index in best]

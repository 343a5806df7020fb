"""What a network costs on this device at its own image sizes, for `effnet.search.solve`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.search.step_time import DEFAULT_BUDGET, forward_turns, with_network
from effnet.search.turns import Budget, Turn, compare
from effnet.training.timing import StepTimer
from effnet.training.unread import prepare_unread

Measured: TypeAlias = Literal["step_ms", "latency_ms"]
"""A training step of ``train.batch_size`` images of the training size, or a forward pass of one image of the
size of evaluation."""
_ANY_NUMBER = 1000
"""Of training images, where the recipe does not say; how long a step takes does not depend on it."""


class DeviceCost:
    """Measures networks as a configuration would train them, on noise.

    Every network is measured in turns with one reference, at the reference's own image size. What counts is
    the ratio of the two, so that the networks can be compared however the machine drifts.

    Args:
        config: Batch, precision, optimizer and whatever else a step depends on.
        reference: The network to measure by.
        kind: What to measure.
        budget: Time for one network.

    Attributes:
        reference_ms: What the reference cost when the first network was measured; 0 before that.

    Raises:
        UserError: The configuration cannot be had on this machine.
    """

    def __init__(
        self, config: Config, reference: NetworkSpec, kind: Measured, budget: Budget = DEFAULT_BUDGET
    ) -> None:
        self._config, self._kind, self._budget = config, kind, budget
        self._reference = self._turn(reference)
        self.reference_ms = 0.0

    def __call__(self, spec: NetworkSpec) -> float:
        """Return the milliseconds of a network.

        Raises:
            torch.OutOfMemoryError: The GPU has no room for it.
        """
        result = compare(self._turn(spec), self._reference, self._budget)
        self.reference_ms = self.reference_ms or result.reference_seconds * 1e3
        return result.ratio * self.reference_ms

    def _turn(self, spec: NetworkSpec) -> Turn:
        config, size = self._config, spec.train_size
        unread = prepare_unread(
            replace(
                config,
                data=replace(
                    config.data,
                    train_images=config.data.train_images or _ANY_NUMBER,
                    classes=spec.num_classes,
                ),
                progressive=replace(config.progressive, mode="staged", stages=1, image_size=(size, size)),
                evaluate=replace(config.evaluate, image_size=spec.image_size),
            )
        )
        run = with_network(unread, spec)
        if self._kind == "latency_ms":
            return forward_turns(run, 1, spec.image_size)
        return StepTimer(run, run.schedule.stages[-1], config.train.batch_size)

"""The moving average of a network's weights and statistics, which is what gets evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from effnet.training.shards import cut_like, own_part


def ema_decay(step: float, *, decay: float, warmup: bool, reference_steps: float = 1.0) -> float:
    """Return the share of the old average that survives the update behind ``step``, counted from 0.

    As released, TensorFlow's warm-up: ``min(decay, (1 + step) / (10 + step))``. A decay of 0.9999 is
    reached at step 89990.

    Args:
        step: Reference steps before the update.
        decay: Of a reference step.
        warmup: Whether the average follows faster at first.
        reference_steps: That the update stands for, as its batch is so many times as large: so many decays.
    """
    return (min(decay, (1 + step) / (10 + step)) if warmup else decay) ** reference_steps


class Ema:
    """Averaged copies of all parameters and batch-norm statistics; integer buffers are copied.

    What a model keeps out of its ``state_dict`` (rates that change with the stage) is left alone.

    Args:
        model: The network to follow, on the device and in the memory format in which it is trained: the
            average holds on to its tensors, and ``model.to`` would replace them.
        decay: See `ema_decay`; 0 follows the model exactly.
        warmup: See `ema_decay`.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: bool) -> None:
        self._decay, self._warmup = decay, warmup
        self._live = model.state_dict()
        self._averages = {name: tensor.clone() for name, tensor in self._live.items()}
        averaged = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        self._averaged = self._lists(averaged)
        self._copied = self._lists([name for name in self._live if name not in set(averaged)])

    def _lists(self, names: list[str]) -> tuple[list[Tensor], list[Tensor]]:
        averages, live = (
            [own_part(tensors[name]) for name in names] for tensors in (self._averages, self._live)
        )
        return averages, live

    @torch.no_grad()
    def update(self, step: float, reference_steps: float = 1.0) -> None:
        """Move the averages towards the model.

        Args:
            step: Updates of the weights before the one just done, so 0 at the first call; in reference
                steps, where batches differ.
            reference_steps: That the update stands for.
        """
        averages, live = self._averaged
        kept = ema_decay(step, decay=self._decay, warmup=self._warmup, reference_steps=reference_steps)
        torch._foreach_lerp_(averages, live, 1 - kept)
        copies, counters = self._copied
        if copies:
            torch._foreach_copy_(copies, counters)

    def copy_to(self, model: nn.Module) -> None:
        """Write the averages into a model of the same network."""
        model.load_state_dict(self._averages)

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Give a model the averages for the length of a ``with`` block, then its own values, bit for bit.

        The averages must not be updated meanwhile.
        """
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages under the model's names; they are the average's own tensors, not copies."""
        return dict(self._averages)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the averages.

        Args:
            tensors: One for each name of `state_dict`, in its shape, on any device.

        Raises:
            KeyError: A name is missing.
        """
        for name, average in self._averages.items():
            average.copy_(cut_like(tensors[name], average))

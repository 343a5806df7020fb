"""Looks for the first number of a training step that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from effnet.training.compiling import uncompiled
from effnet.training.shards import own_part


@dataclass(kw_only=True, slots=True)
class Findings:
    """Whether what a step computed is finite, in the order in which it was computed."""

    outputs: list[tuple[str, Tensor]] = field(default_factory=list)
    gradients: list[tuple[str, Tensor]] = field(default_factory=list)

    def of_loss(self, loss: float, step: int) -> str:
        """Return that a loss is not finite, and in which layer that begins; nothing where it is finite.

        Args:
            loss: Of the step.
            step: Which one it is.
        """
        if math.isfinite(loss):
            return ""
        where = _first_bad(self.outputs) or "the loss itself"
        return f"the loss is {loss} at step {step}, which begins in {where}"

    def of_gradients(self, step: int) -> str:
        """Return that a gradient is not finite, and which one is the first; nothing where all are.

        Args:
            step: Which one it is.
        """
        where = _first_bad(self.gradients)
        return f"a gradient is not finite at step {step}, which begins in {where}" if where else ""


def watched(do_step: Callable[[], Tensor], model: nn.Module) -> tuple[Tensor, Findings]:
    """Do a step while all layers' outputs and all parameters' gradients are looked at.

    Args:
        do_step: Runs forward and backward pass of the model and returns the loss.
        model: The network itself, not what wraps it.
    """
    findings = Findings()
    handles: list[RemovableHandle] = [model.register_forward_pre_hook(partial(_note_input, findings))]
    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            handles.append(module.register_forward_hook(partial(_note_output, findings, name)))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            note = partial(_note_gradient, findings, name)
            handles.append(parameter.register_post_accumulate_grad_hook(note))  # type: ignore[no-untyped-call]
    try:
        with uncompiled():
            return do_step(), findings
    finally:
        for handle in handles:
            handle.remove()


def _note_input(findings: Findings, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    findings.outputs.append(("the images", inputs[0].isfinite().all()))


def _note_output(findings: Findings, name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:  # noqa: ANN401
    findings.outputs.append((f"the output of {name}", output.isfinite().all()))


def _note_gradient(findings: Findings, name: str, parameter: Tensor) -> None:
    if parameter.grad is not None:
        findings.gradients.append((f"that of {name}", own_part(parameter.grad).isfinite().all()))


def _first_bad(flags: list[tuple[str, Tensor]]) -> str:
    finite = torch.stack([flag for _, flag in flags]).tolist() if flags else []
    return next((name for (name, _), is_finite in zip(flags, finite, strict=True) if not is_finite), "")

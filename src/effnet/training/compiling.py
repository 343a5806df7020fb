"""Networks that are compiled for each image size, and those that run as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from effnet.config import Config
from effnet.errors import UserError
from effnet.schedule.progressive import StageSettings

_SPARE_GRAPHS = 8
"""Besides two a size: the phase in which only the classifier learns, a micro-batch of another size."""
_AS_IT_IS = ContextVar("as_it_is", default=False)


def is_compiler_mode(mode: str) -> bool:
    """Whether a value of ``train.compile`` is a mode of ``torch.compile``, which takes long to compile."""
    return mode not in {"auto", "off", "graphs"}


def is_compiled(config: Config) -> bool:
    """Whether a run's network is compiled, which takes so long that it is done before the steps."""
    return is_compiler_mode(config.train.compile)


def compile_network(model: nn.Module, config: Config, stages: Iterable[StageSettings]) -> None:
    """Let a network be compiled when it is first called with each shape, where the configuration says so.

    Shapes are static, so that every size gets the kernels that are made for it; the drop rates of a stage are
    buffers and compile nothing anew. Names and parameters of the network stay what they are.

    Args:
        model: Changed in place.
        config: Of the run.
        stages: Of the run.

    Raises:
        UserError: The configuration also recomputes blocks in the backward pass.
    """
    if config.train.compile in {"auto", "off"}:
        return
    if config.model.gradient_checkpointing:
        reason = "the compiler cannot look into" if is_compiled(config) else "a CUDA graph cannot record"
        raise UserError(
            f"train.compile '{config.train.compile}' and model.gradient_checkpointing do not go together: "
            f"{reason} recomputed blocks; switch one of them off, or set a smaller train.micro_batch_size"
        )
    if not is_compiled(config):
        return
    sizes = {(stage.image_size, stage.batch_size) for stage in stages}
    # Behind the limit the compiler would go on without compiling, and say so once.
    limit = 2 * len(sizes) + _SPARE_GRAPHS
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    model.compile(mode=config.train.compile, dynamic=False, fullgraph=True)


def replays_graphs(config: Config, device: torch.device) -> bool:
    """Whether the compiler makes CUDA graphs of a run's passes, which write to the same memory every time."""
    return config.train.compile == "reduce-overhead" and device.type == "cuda"


def own_gradients(model: nn.Module) -> None:
    """Give every parameter that learns a gradient of zeros in memory of its own.

    The first backward pass would leave in ``.grad`` the very memory of its CUDA graph, where the pass of the
    next micro-batch writes: their sum would be wrong, or an error (pytorch#96693, pytorch#169545).

    Args:
        model: Whose gradients are None.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run networks as they are for the length of a ``with`` block: not compiled, and not recorded."""
    before = _AS_IT_IS.set(True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _AS_IT_IS.reset(before)


def runs_as_it_is() -> bool:
    """Whether this is within `uncompiled`."""
    return _AS_IT_IS.get()

"""Networks that are compiled for each image size."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from effnet.config import Config
from effnet.errors import UserError
from effnet.schedule.progressive import StageSettings

_SPARE_GRAPHS = 8
"""Besides two a size: the phase in which only the classifier learns, a micro-batch of another size."""


def is_compiled(config: Config) -> bool:
    """Whether a run's network is compiled."""
    return config.train.compile not in {"auto", "off"}


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
    if not is_compiled(config):
        return
    if config.model.gradient_checkpointing:
        raise UserError(
            f"train.compile '{config.train.compile}' and model.gradient_checkpointing do not go together: "
            "the compiler cannot look into recomputed blocks; switch one of them off, or set a smaller "
            "train.micro_batch_size"
        )
    sizes = {(stage.image_size, stage.batch_size) for stage in stages}
    # Behind the limit the compiler would go on without compiling, and say so once.
    limit = 2 * len(sizes) + _SPARE_GRAPHS
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    model.compile(mode=config.train.compile, dynamic=False, fullgraph=True)


def replays_graphs(config: Config, device: torch.device) -> bool:
    """Whether the passes of a run are CUDA graphs, which write to the same memory every time."""
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


def uncompiled() -> AbstractContextManager[None]:
    """Run networks as they are for the length of a ``with`` block: for sizes that are not worth compiling."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance

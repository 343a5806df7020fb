"""How several processes run one network: its gradients, its batch norm, its parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from effnet.config import Config, DistributedConfig
from effnet.data.loader import Share
from effnet.data.processes import Processes
from effnet.errors import UserError
from effnet.nn import Network
from effnet.nn.blocks import Block
from effnet.nn.shared_norm import share_norm
from effnet.training.compiling import is_compiled


def check_processes(config: Config, processes: Processes, *, smallest_batch: int) -> None:
    """Make sure that a run can be divided among its processes.

    Raises:
        UserError: A process would have no image of a batch, groups of batch norm would differ in size, or
            what is asked for needs whole layers where they are sharded.
    """
    section, count = config.distributed, processes.count
    if smallest_batch < count:
        raise UserError(
            f"a batch of {smallest_batch} images cannot be shared by {count} processes; raise "
            "train.batch_size, or start fewer"
        )
    if section.norm == "group" and count % min(section.norm_group, count):
        raise UserError(
            f"{count} processes cannot be divided into groups of distributed.norm_group = "
            f"{section.norm_group}; choose a divisor"
        )
    if count == 1:
        return
    is_sharded = section.strategy == "fsdp"
    if is_compiled(config) and (is_sharded or section.norm != "local"):
        raise UserError(
            f"train.compile '{config.train.compile}' needs distributed.strategy=ddp and "
            "distributed.norm=local: the compiler cannot look into what processes exchange within a network; "
            "set train.compile=off"
        )
    if is_sharded:
        _check_cut(config)


def _check_cut(config: Config) -> None:
    """Refuse what needs whole weights or gradients where each process has a part of them."""
    reasons = {
        "train.precision 'fp16'; use bf16": config.train.precision == "fp16",
        "train.adaptive_clip; use train.gradient_clip": config.train.adaptive_clip > 0,
        f"optimizer.name '{config.optimizer.name}'; use another one": config.optimizer.name
        in {"lamb", "lars"},
    }
    for reason, is_asked_for in reasons.items():
        if is_asked_for:
            raise UserError(f"distributed.strategy 'fsdp' does not go with {reason}, or the strategy 'ddp'")


def join_norms(model: nn.Module, config: DistributedConfig, processes: Processes) -> None:
    """Let batch norm take its statistics over the images of as many processes as the configuration says."""
    if processes.count > 1 and config.norm != "local":
        share_norm(model, _norm_group(config, processes))


def _norm_group(config: DistributedConfig, processes: Processes) -> ProcessGroup | None:
    if config.norm == "all" or config.norm_group >= processes.count:
        return None
    own, _ = distributed.new_subgroups(config.norm_group)  # type: ignore[no-untyped-call]
    return own


def shard(model: Network, processes: Processes, device: torch.device) -> None:
    """Cut every block's parameters, and those of the rest, into one part for each process (FSDP2).

    Args:
        model: Changed in place. Its parameters lose the channels-last format, which cannot be cut.
        processes: More than one.
        device: Where the model is.
    """
    # Half a second, which only training has to spend, and has spent already.
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    mesh = init_device_mesh(device.type, (processes.count,))
    for module in list(model.modules()):
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def wrap(model: Network, config: DistributedConfig) -> nn.Module:
    """Return what runs a network and leaves the mean over all processes in the gradients.

    Args:
        model: The same in all processes. Which of its parameters learn must not change afterwards.
        config: With strategy ``fsdp``, `shard` has done it.
    """
    if config.strategy == "fsdp":
        return model
    with warnings.catch_warnings():
        # Its new name does not exist in all versions that are supported.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


@contextmanager
def gradients_kept(runner: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Let the gradients of a forward and backward pass wait in this process for those of the last one.

    Args:
        runner: Of `wrap`, or a network that runs alone.
        is_last: Whether all processes' gradients are averaged in this pass.
    """
    from torch.distributed.fsdp import FSDPModule  # noqa: PLC0415 - see `shard`

    if isinstance(runner, FSDPModule):
        runner.set_requires_gradient_sync(is_last)
    if isinstance(runner, DistributedDataParallel) and not is_last:
        with runner.no_sync():
            yield
    else:
        yield


def micro_batches(images: int, processes: Processes, most: int) -> int:
    """Return in how many parts each process runs its share of a batch, the same number in all of them.

    Args:
        images: Of the whole batch.
        processes: Which share it.
        most: Images that a process runs at once; 0: its whole share.
    """
    if not most:
        return 1
    largest = max(len(Share(rank, processes.count).of(images)) for rank in (0, processes.count - 1))
    # Every part of every process has an image.
    return min(-(-largest // most), images // processes.count)


def average_statistics(model: nn.Module, config: DistributedConfig, processes: Processes) -> None:
    """Give batch norm's moving statistics the mean over all processes, where they may differ."""
    if processes.count == 1 or config.norm == "all":
        return
    statistics = [
        tensor
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training
        for tensor in (module.running_mean, module.running_var)
        if tensor is not None
    ]
    if not statistics:
        return
    together = torch.cat(statistics)
    distributed.all_reduce(together)
    together /= processes.count
    torch._foreach_copy_(statistics, torch.split(together, [len(tensor) for tensor in statistics]))

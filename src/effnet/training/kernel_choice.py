"""Which kernels a run uses, where its configuration leaves that open, and what is said about them."""

from __future__ import annotations

import torch

from effnet.arch.external import AnySpec
from effnet.arch.spec import NetworkSpec
from effnet.config import Config, TrainConfig
from effnet.errors import UserError
from effnet.kernels import Kernels
from effnet.native import has_numba

_INSTALL = "pip install 'effnet[cpu]'"


def default_kernels(train: TrainConfig, spec: AnySpec, device: torch.device) -> Kernels:
    """Return the kernels of a run for which nothing was measured.

    Args:
        train: With everything else that is about computation chosen.
        spec: The network.
        device: Where it is trained.
    """
    return "numba" if has_numba() and _fits_numba(train, spec, device) else "plain"


def check_kernels(train: TrainConfig, device: torch.device) -> None:
    """Refuse kernels that a new run cannot have.

    Raises:
        UserError: Numba's are asked for where they never run.
    """
    if train.kernels != "numba":
        return
    if not has_numba():
        raise UserError(
            f"train.kernels 'numba' needs the package numba, which is not installed: {_INSTALL}, or set "
            "train.kernels=plain"
        )
    if device.type != "cpu":
        raise UserError(
            f"train.kernels 'numba' is for processors, and the run is on {device}; set train.kernels=plain"
        )
    if train.memory_format == "contiguous":
        raise UserError(
            "train.kernels 'numba' reads activations with their channels last, and train.memory_format is "
            "'contiguous'; set it to channels_last, or train.kernels=plain"
        )
    if train.compile not in {"auto", "off"}:
        raise UserError(
            f"train.kernels 'numba' and train.compile '{train.compile}' do not go together: the compiler "
            "joins layers itself, and graphs are for GPUs; set one of them to plain or off"
        )


def kernels_line(config: Config, spec: AnySpec, device: torch.device) -> str:
    """Return what to say about a run's kernels when it begins or goes on; empty where there is nothing.

    Args:
        config: Of the run, complete.
        spec: Its network.
        device: Where it is trained.
    """
    train = config.train
    if train.kernels == "numba":
        if has_numba():
            more = ", batch norm and what follows it" if train.precision == "fp32" else ""
            return f"depthwise convolutions{more} by Numba (train.kernels)"
        return (
            "the run was started with train.kernels 'numba', but Numba is not installed here; PyTorch's "
            f"layers continue it, equal up to rounding ({_INSTALL})"
        )
    if train.kernels == "plain" and not has_numba() and _fits_numba(train, spec, device):
        return f"with Numba a training step would be faster on this processor: {_INSTALL}"
    return "" if train.kernels == "plain" else f"kernels: {train.kernels} (train.kernels)"


def _fits_numba(train: TrainConfig, spec: AnySpec, device: torch.device) -> bool:
    return (
        isinstance(spec, NetworkSpec)
        and device.type == "cpu"
        and train.precision in {"fp32", "bf16"}
        and train.memory_format == "channels_last"
        and train.compile == "off"
    )

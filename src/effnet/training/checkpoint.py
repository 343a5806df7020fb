"""The state of a run in one safetensors file: weights, averages, optimizer, step.

There is no state of random generators: every step draws from a generator seeded by (seed, step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from effnet.errors import UserError
from effnet.training.ema import Ema
from effnet.training.optimizers import load_optimizer_tensors, optimizer_tensors
from effnet.weights.storage import read_metadata, read_tensors, write_tensors

MODEL, EMA, OPTIMIZER = "model/", "ema/", "optimizer/"
_KIND = "training checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What a checkpoint holds besides tensors."""

    step: int
    """Steps done."""
    extra: dict[str, Any]
    """What the run stored."""


def save_checkpoint(
    path: Path,
    *,
    step: int,
    model: nn.Module,
    ema: Ema | None,
    optimizer: Optimizer,
    extra: Mapping[str, Any],
) -> None:
    """Write the state of a run; a file of that name is replaced only by a whole new one.

    Args:
        path: Where the file will be; its folder must exist.
        step: Steps done.
        model: The network, not compiled.
        ema: Its moving average, if the run has one.
        optimizer: Of `effnet.training.optimizers.build_optimizer`.
        extra: What JSON can hold.

    Raises:
        OSError: The disk is full or cannot be written; a file that was there before is unharmed.
    """
    tensors = _prefixed(MODEL, model.state_dict())
    tensors |= _prefixed(EMA, ema.state_dict() if ema else {})
    tensors |= _prefixed(OPTIMIZER, optimizer_tensors(optimizer))
    metadata = {
        "kind": _KIND,
        "step": step,
        "optimizer": type(optimizer).__name__,
        "has_ema": ema is not None,
        "extra": dict(extra),
    }
    write_tensors(path, tensors, metadata)


def load_checkpoint(path: Path, *, model: nn.Module, ema: Ema | None, optimizer: Optimizer) -> CheckpointInfo:
    """Put the state of a run back, exactly; nothing is changed when the checkpoint does not fit.

    Args:
        path: Written by `save_checkpoint`.
        model: The same network, not compiled.
        ema: Its moving average, if the run has one.
        optimizer: Built with the same configuration.

    Raises:
        UserError: The file is missing or damaged, is no checkpoint, or belongs to another network or to
            a run with another optimizer or without a moving average.
    """
    metadata, tensors = _read(path)
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path} holds no state of a training run; a run can only continue from its own")
    weights = _with_prefix(MODEL, tensors)
    _check_network(path, weights, model)
    _check_run(path, metadata, ema, optimizer)

    load_optimizer_tensors(optimizer, _with_prefix(OPTIMIZER, tensors))
    model.load_state_dict(weights)
    if ema:
        ema.load(_with_prefix(EMA, tensors))
    return CheckpointInfo(step=metadata["step"], extra=metadata["extra"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        return read_metadata(path), read_tensors(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the checkpoint {path} is damaged ({error}); delete it and continue from another one"
        ) from error


def _check_network(path: Path, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    saved = {name: list(tensor.shape) for name, tensor in weights.items()}
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in [*expected, *saved]:
        if saved.get(name) != expected.get(name):
            raise UserError(
                f"the checkpoint {path} belongs to another network: '{name}' has shape "
                f"{saved.get(name, 'none')} in the file and {expected.get(name, 'none')} in this network; "
                "continue with the configuration that the run was started with"
            )


def _check_run(path: Path, metadata: Mapping[str, Any], ema: Ema | None, optimizer: Optimizer) -> None:
    own = type(optimizer).__name__
    if metadata["optimizer"] != own:
        raise UserError(
            f"the checkpoint {path} was written with the optimizer {metadata['optimizer']}, this run "
            f"uses {own}; continue with the configuration that the run was started with"
        )
    if metadata["has_ema"] != (ema is not None):
        state = "with" if metadata["has_ema"] else "without"
        raise UserError(
            f"the checkpoint {path} was written {state} a moving average of the weights; "
            "continue with the ema.decay that the run was started with"
        )


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

"""The state of a run in one safetensors file: weights, averages, optimizer, step.

There is no state of random generators: every step draws from a generator seeded by (seed, step). A file says
what its contents' digest is, so that one that lost a bit on its way is not continued from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from effnet.errors import UserError
from effnet.training.ema import Ema
from effnet.training.optimizers import load_optimizer_tensors, optimizer_tensors
from effnet.training.shards import cut_like, whole
from effnet.weights.storage import contents_digest, read_metadata, read_tensors, write_tensors

MODEL, EMA, OPTIMIZER = "model/", "ema/", "optimizer/"
_KIND, _DIGEST = "training checkpoint", "sha256"


class DamagedCheckpointError(UserError):
    """A checkpoint is not what was written; another one may be.

    Args:
        reason: Which file, and what is wrong with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; delete it and continue from another one")
        self.reason = reason


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What a checkpoint holds besides tensors."""

    step: int
    """Steps done."""
    extra: dict[str, Any]
    """What the run stored."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Snapshot:
    """The state of a run after a step, in memory of its own."""

    step: int
    """Steps done."""
    tensors: dict[str, Tensor]
    """Under their names in the file."""
    metadata: dict[str, Any]


def take_snapshot(
    *,
    step: int,
    model: nn.Module,
    ema: Ema | None,
    optimizer: Optimizer,
    extra: Mapping[str, Any],
    is_kept: bool = True,
) -> Snapshot:
    """Copy the state of a run, which may then go on while the copy is written.

    Several processes must all make the call.

    Args:
        step: Steps done.
        model: The network, not compiled.
        ema: Its moving average, if the run has one.
        optimizer: Of `effnet.training.optimizers.build_optimizer`.
        extra: What JSON can hold.
        is_kept: Whether this process wants the tensors; else it only gives its parts of those that are cut.
    """
    metadata = {
        "kind": _KIND,
        "step": step,
        "optimizer": type(optimizer).__name__,
        "has_ema": ema is not None,
        "extra": dict(extra),
    }
    copies = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in whole(state_tensors(model, ema, optimizer), is_kept=is_kept).items()
    }
    return Snapshot(step=step, tensors=copies, metadata=metadata)


def state_tensors(model: nn.Module, ema: Ema | None, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return all tensors that a step changes, under their names in a checkpoint; they are no copies."""
    tensors = _prefixed(MODEL, model.state_dict())
    tensors |= _prefixed(EMA, ema.state_dict() if ema else {})
    return tensors | _prefixed(OPTIMIZER, optimizer_tensors(optimizer))


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write the state of a run; a file of that name is replaced only by a whole new one.

    Args:
        path: Where the file will be; its folder must exist.
        snapshot: What to write; equal states are equal files.

    Raises:
        OSError: The disk is full or cannot be written; a file that was there before is unharmed.
    """
    digest = contents_digest(snapshot.tensors, snapshot.metadata)
    write_tensors(path, snapshot.tensors, snapshot.metadata | {_DIGEST: digest})


def load_checkpoint(path: Path, *, model: nn.Module, ema: Ema | None, optimizer: Optimizer) -> CheckpointInfo:
    """Put the state of a run back, exactly; nothing is changed when the checkpoint does not fit.

    Args:
        path: Written by `write_snapshot`.
        model: The same network, not compiled.
        ema: Its moving average, if the run has one.
        optimizer: Built with the same configuration.

    Raises:
        DamagedCheckpointError: The file cannot be read, or its contents are not what was written.
        UserError: The file is missing, is no checkpoint, or belongs to another network or to a run with
            another optimizer or without a moving average.
    """
    metadata, tensors = _read(path)
    weights = _with_prefix(MODEL, tensors)
    _check_network(path, weights, model)
    _check_run(path, metadata, ema, optimizer)

    load_optimizer_tensors(optimizer, _with_prefix(OPTIMIZER, tensors))
    live = model.state_dict()
    model.load_state_dict({name: cut_like(tensor, live[name]) for name, tensor in weights.items()})
    if ema:
        ema.load(_with_prefix(EMA, tensors))
    return CheckpointInfo(step=metadata["step"], extra=metadata["extra"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        metadata, tensors = read_metadata(path), read_tensors(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path} holds no state of a training run; a run can only continue from its own")
    digest = metadata.pop(_DIGEST, None)
    if digest != contents_digest(tensors, metadata):
        raise _damaged(path, "its contents do not have the digest that was written with them")
    return metadata, tensors


def _damaged(path: Path, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"the checkpoint {path} is damaged ({reason})")


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

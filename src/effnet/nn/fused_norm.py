"""Batch norm in training mode together with what follows it, by `effnet.kernels`.

Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effnet.kernels import Kernels, batch_norm_act, batch_norm_act_squeeze_excite, norm_plain
from effnet.kernels.dispatch import runs_by_numba
from effnet.kernels.norm import move_statistics
from effnet.kernels.norm_plain import Moving


def can_fuse(
    x: Float[Tensor, "N C H W"],
    norm: nn.Module,
    act: nn.Module,
    kernels: Kernels,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> bool:
    """Whether these kernels compute what these layers compute.

    Not so in evaluation mode, over the images of several processes, with other activations, and where
    batch norm refuses its input. Numba's do not know all tensors, either.
    """
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and isinstance(act, nn.SiLU | nn.Identity)
        and x.numel() > x.shape[1]
        and (kernels != "numba" or (norm.weight.dtype == x.dtype and runs_by_numba(x, identity)))
    )


def fused_norm(
    x: Float[Tensor, "N C H W"],
    norm: nn.BatchNorm2d,
    *,
    kernels: Kernels,
    is_silu: bool,
    keep: Float[Tensor, " N"] | None = None,
    identity: Float[Tensor, "N C H W"] | None = None,
) -> Float[Tensor, "N C H W"]:
    """Return ``identity + keep * activation(norm(x))`` and move the norm's statistics."""
    _count_batch(norm)
    if kernels == "numba":
        from effnet.kernels import norm_numba  # noqa: PLC0415 - Numba is optional

        return norm_numba.batch_norm_act(
            x,
            norm.weight,
            norm.bias,
            epsilon=norm.eps,
            is_silu=is_silu,
            keep=keep,
            identity=identity,
            moving=_moving(norm),
        )[0]
    out, mean, variance = batch_norm_act(
        x, norm.weight, norm.bias, epsilon=norm.eps, is_silu=is_silu, keep=keep, identity=identity
    )
    _move_statistics(norm, mean, variance, count=x.numel() // x.shape[1])
    return out


def fused_norm_squeeze_excite(
    x: Float[Tensor, "N C H W"],
    norm: nn.BatchNorm2d,
    *,
    kernels: Kernels,
    reduce: nn.Conv2d,
    expand: nn.Conv2d,
) -> Float[Tensor, "N C H W"]:
    """Return ``silu(norm(x))`` times its squeeze-excite gate, and move the norm's statistics."""
    assert reduce.bias is not None
    assert expand.bias is not None
    _count_batch(norm)
    layers = {
        "reduce_weight": reduce.weight.flatten(1),
        "reduce_bias": reduce.bias,
        "expand_weight": expand.weight.flatten(1),
        "expand_bias": expand.bias,
    }
    if kernels == "numba":
        from effnet.kernels import norm_numba  # noqa: PLC0415 - Numba is optional

        return norm_numba.batch_norm_act_squeeze_excite(
            x, norm.weight, norm.bias, **layers, epsilon=norm.eps, moving=_moving(norm)
        )[0]
    out, mean, variance = batch_norm_act_squeeze_excite(x, norm.weight, norm.bias, **layers, epsilon=norm.eps)
    _move_statistics(norm, mean, variance, count=x.numel() // x.shape[1])
    return out


def _count_batch(norm: nn.BatchNorm2d) -> None:
    # Before the norm, as in torch: the recomputation of a block ends with what its last norm keeps.
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)


def _moving(norm: nn.BatchNorm2d) -> Moving | None:
    """Return what is moved by kernels that do that themselves."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return None
    weight = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    return Moving(norm.running_mean, norm.running_var, weight)


@torch.no_grad()
def _move_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Do to the running statistics what `nn.BatchNorm2d` does."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    correction = count / (count - 1)
    if norm.momentum is None:
        # torch's rule: the mean over all batches.
        moving = Moving(norm.running_mean, norm.running_var, 1 / norm.num_batches_tracked)
        norm_plain.move(mean, variance, moving, correction=correction)
    else:
        move_statistics(norm.running_mean, norm.running_var, mean, variance, norm.momentum, correction)

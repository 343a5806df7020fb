"""Batch norm whose statistics are those of the images of several processes.

torch's own `SyncBatchNorm` needs a GPU; this one is the same arithmetic on any device.
Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup
from torch.nn import functional

from effnet.errors import UserError


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all images that a group of processes sees in the same call.

    Outputs, gradients and moving statistics are those of one process with all of these images. The processes
    may have different numbers of images, and all must make the call. In evaluation mode it is batch norm.
    """

    group: ProcessGroup | None = None
    """The processes; None: all."""

    @classmethod
    def replacing(cls, norm: nn.BatchNorm2d, group: ProcessGroup | None) -> SharedBatchNorm2d:
        """Return a layer with the parameters and statistics of ``norm``, not copies of them."""
        shared = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum, device="meta")
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
        shared.num_batches_tracked = norm.num_batches_tracked
        shared.group = group
        return shared.train(norm.training)

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, self.group
        )
        self._move_statistics(mean, variance * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        # torch's rule where there is no momentum: the mean over all batches.
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def share_norm(model: nn.Module, group: ProcessGroup | None) -> None:
    """Let every batch norm of a network share its statistics; the names of its ``state_dict`` stay.

    Args:
        model: Changed in place; its parameters stay the same objects.
        group: The processes; None: all.

    Raises:
        UserError: A layer does more than batch norm, and would not do it any more.
    """
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.BatchNorm2d:
                setattr(parent, name, SharedBatchNorm2d.replacing(norm, group))
            elif isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, SharedBatchNorm2d):
                raise UserError(
                    f"the statistics of {type(norm).__name__} cannot be shared among processes; "
                    "set distributed.norm=local"
                )


class _Normalize(torch.autograd.Function):
    """One exchange of count, mean and variance forward, one of two sums backward."""

    @staticmethod
    def forward(  # noqa: PLR0917 - as autograd calls it
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        group: ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = x.shape[1]
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(exact, (0, 2, 3), correction=0)
        own = torch.cat([mean.new_full((1,), x.numel() // channels), mean, variance])
        every = own.new_empty((distributed.get_world_size(group), len(own)))
        distributed.all_gather(list(every.unbind()), own, group=group)
        counts, means, variances = torch.split(every, [1, channels, channels], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # Not the mean of squares minus the square of the mean, which cancels where the mean is large.
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count

        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.epsilon, ctx.group = epsilon, group
        ctx.mark_non_differentiable(mean, variance, count)
        output = functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=epsilon)
        return output, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        # As if the statistics were constants ...
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.epsilon, [True, True, True]
        )
        # ... and what flows through them, which all processes' outputs depend on.
        sums = torch.cat([of_weight, of_bias])
        distributed.all_reduce(sums, group=ctx.group)
        through_variance, through_mean = (sums / count).chunk(2)
        inverse_deviation = (variance + ctx.epsilon).rsqrt()
        scale = weight * inverse_deviation
        slope = -scale * inverse_deviation * through_variance
        offset = -scale * through_mean - slope * mean
        of_x = torch.addcmul(of_x, x, slope[:, None, None]) + offset[:, None, None]
        return of_x.to(x.dtype), of_weight, of_bias, None, None

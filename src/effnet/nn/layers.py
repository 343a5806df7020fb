"""The layers that blocks are made of.

Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effnet.arch.spec import Activation, NetworkSpec
from effnet.kernels import Kernels
from effnet.nn.depthwise import can_convolve, convolve
from effnet.nn.fused_norm import can_fuse, fused_norm, fused_norm_squeeze_excite
from effnet.nn.pointwise import can_multiply, multiply

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}


def activation(name: Activation) -> nn.Module:
    """Return a new activation layer."""
    return _ACTIVATIONS[name]()


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's ``SAME``: the output has ``ceil(size / stride)`` pixels.

    Where the padding is odd, the extra pixel goes to the bottom and the right. This depends on the size
    of the input, so a network that trains at even and odd sizes pads differently at each.
    """

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D P Q"]:
        top, bottom, left, right = self.padding_of(input)
        padding = (top, left)
        if top != bottom or left != right:
            input, padding = functional.pad(input, (left, right, top, bottom)), (0, 0)
        return functional.conv2d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def padding_of(self, input: Float[Tensor, "N C H W"]) -> tuple[int, int, int, int]:
        """Return the zeros at the top, the bottom, the left and the right of an input."""
        rows, columns = (
            _total_padding(size, kernel, stride)
            for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


def _total_padding(size: int, kernel: int, stride: int) -> int:
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class StemPool(nn.Module):
    """3 x 3 max pooling of stride 2, padded as the network pads; the output has ``ceil(size / 2)`` pixels."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.is_same = spec.padding == "same"

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C P Q"]:
        if not self.is_same:
            return functional.max_pool2d(x, 3, 2, padding=1)
        rows, columns = (_total_padding(size, 3, 2) for size in x.shape[2:])
        padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return functional.max_pool2d(functional.pad(x, padding, value=-torch.inf), 3, 2)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm and, if asked for, the network's activation."""

    kernels: Kernels = "plain"
    """What `effnet.kernels` computes in training mode, wherever it can; see `EfficientNet`."""

    def __init__(
        self,
        spec: NetworkSpec,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        # At stride 1 an odd kernel is padded equally on both sides under either rule.
        is_same = spec.padding == "same" and stride > 1
        self.conv = (SameConv2d if is_same else nn.Conv2d)(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=0 if is_same else kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=spec.norm_epsilon, momentum=spec.norm_momentum)
        self.act = activation(spec.activation) if activate else nn.Identity()

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D P Q"]:
        if self.kernels == "plain":
            return super().forward(input)  # type: ignore[no-untyped-call]
        x = self._convolve(input)
        if not can_fuse(x, self.norm, self.act, self.kernels):
            return self.act(self.norm(x))
        return fused_norm(x, self.norm, kernels=self.kernels, is_silu=isinstance(self.act, nn.SiLU))

    def gated(
        self, input: Float[Tensor, "N C H W"], squeeze_excite: SqueezeExcite
    ) -> Float[Tensor, "N D P Q"]:
        """Return the output of the squeeze-excite layer behind this one."""
        x = self._convolve(input)
        is_silu = isinstance(self.act, nn.SiLU) and isinstance(squeeze_excite.act, nn.SiLU)
        if not (is_silu and can_fuse(x, self.norm, self.act, self.kernels)):
            return squeeze_excite(self.act(self.norm(x)))
        return fused_norm_squeeze_excite(
            x,
            self.norm,
            kernels=self.kernels,
            reduce=squeeze_excite.reduce,
            expand=squeeze_excite.expand,
        )

    def added(
        self,
        input: Float[Tensor, "N C H W"],
        identity: Float[Tensor, "N D P Q"],
        drop_path: StochasticDepth,
    ) -> Float[Tensor, "N D P Q"]:
        """Return the residual sum behind this layer."""
        x = self._convolve(input)
        is_same = identity.dtype == x.dtype and drop_path.training
        if not (is_same and can_fuse(x, self.norm, self.act, self.kernels, identity)):
            return drop_path(identity, self.act(self.norm(x)))
        keep = drop_path.draw(x).flatten()
        is_silu = isinstance(self.act, nn.SiLU)
        return fused_norm(x, self.norm, kernels=self.kernels, is_silu=is_silu, keep=keep, identity=identity)

    def _convolve(self, input: Tensor) -> Tensor:
        conv = self.conv
        if can_multiply(conv, input, self.kernels):
            return multiply(input, conv)
        if not can_convolve(conv, self.kernels):
            return conv(input)
        padding = (conv.kernel_size[0] // 2,) * 4
        if isinstance(conv, SameConv2d):
            padding = conv.padding_of(input)
        return convolve(input, conv, self.kernels, padding=padding)


class SqueezeExcite(nn.Module):
    """Channel gate computed from the global mean (1709.01507), with biases and a sigmoid."""

    def __init__(self, spec: NetworkSpec, channels: int, squeeze_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.act = activation(spec.activation)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        squeezed = mean_of_pixels(x)
        return x * self.expand(self.act(self.reduce(squeezed))).sigmoid()


def mean_of_pixels(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C 1 1"]:
    """Return the mean over the pixels.

    On a processor it is computed as torch computes it, a sum that is then divided, but in two operations: the
    backward pass of `torch.mean` would write the same gradient for each pixel into memory.
    """
    is_traced = torch.compiler.is_compiling()
    if x.device.type != "cpu" or x.dtype != torch.float32 or is_traced or not x.requires_grad:
        return x.mean((2, 3), keepdim=True)
    return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])


class StochasticDepth(nn.Module):
    """Residual sum whose branch is dropped for whole images (1603.09382).

    The rate lives in a buffer, so that it can change while running, also from zero, without a new graph.
    """

    rate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.zeros(()), persistent=False)

    def forward(
        self, identity: Float[Tensor, "N C H W"], branch: Float[Tensor, "N C H W"]
    ) -> Float[Tensor, "N C H W"]:
        if not self.training:
            return identity + branch
        return torch.addcmul(identity, branch, self.draw(branch).to(branch.dtype))

    def draw(self, branch: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 1 1 1"]:
        """Return what each image's branch is multiplied by, 0 or the inverse of the share that is kept."""
        keep = 1.0 - self.rate
        draws = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device)
        return (draws < keep) / keep


class Dropout(nn.Module):
    """Dropout whose rate lives in a buffer, see `StochasticDepth`."""

    rate: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate", torch.zeros(()), persistent=False)

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if not self.training:
            return x
        keep = 1.0 - self.rate
        draws = torch.rand(x.shape, device=x.device)
        return x * ((draws < keep) / keep).to(x.dtype)

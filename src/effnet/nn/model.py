"""The one interpreter of `NetworkSpec`: stem, stages, head, classifier.

Dimension key: N images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, groupby
from operator import mul
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effnet.arch.spec import NetworkSpec
from effnet.kernels import Kernels
from effnet.nn.blocks import Block
from effnet.nn.init import initialize
from effnet.nn.layers import ConvNorm, Dropout, StemPool
from effnet.nn.network import Network

Checkpointing: TypeAlias = Literal[False, True, "selective"]
"""Which blocks the backward pass computes anew from their input instead of keeping what is in between: none,
all, or ``selective`` those with large maps. V2-S's last stage, behind them, keeps a quarter of the memory and
takes two fifths of the time to compute anew (docs/log.md)."""
_LARGE_MAPS = 16
"""Maps have at least this part of the image's side where they are large."""


class EfficientNet(Network):
    """A network built from its spec, with weights drawn as released.

    Dropout and drop-path start at 0; `set_dropout` and `set_drop_path` change them while running. With
    ``kernels``, `effnet.kernels` computes in training mode what it can, to the same up to rounding:
    ``triton-norm`` batch norm and what follows it, ``triton`` depthwise convolutions as well, and ``numba``
    on a processor depthwise convolutions that torch computes slowly and, in single or double precision, batch
    norm and what follows it, and convolutions of one pixel as products of matrices. The names of the
    ``state_dict`` and the order of random numbers stay.
    """

    spec: NetworkSpec

    def __init__(
        self, spec: NetworkSpec, *, gradient_checkpointing: Checkpointing = False, kernels: Kernels = "plain"
    ) -> None:
        super().__init__()
        self.spec = spec
        self.stem = ConvNorm(
            spec, spec.in_channels, spec.stem_channels, kernel_size=spec.stem_kernel_size, stride=2
        )
        self.pool = StemPool(spec) if spec.stem_pooling else None
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(spec, block) for block in blocks))
            for _, blocks in groupby(spec.blocks(), key=lambda block: block.stage)
        )
        self.head: nn.Module = nn.Identity()
        if spec.head_channels:
            self.head = ConvNorm(spec, spec.stages[-1].channels, spec.head_channels)
        self.dropout = Dropout()
        self.classifier = nn.Linear(spec.feature_channels, spec.num_classes)
        for module in self.modules():
            if isinstance(module, Block | ConvNorm):
                module.kernels = kernels
        self._recomputed = self._recomputed_blocks(gradient_checkpointing)
        initialize(self)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        x = images
        for _, x in self._walk(images):  # noqa: B007 - the last feature is what counts
            pass
        return self.classify(x)

    def features(self, images: Float[Tensor, "N C H W"]) -> dict[str, Float[Tensor, "N _ _ _"]]:
        """Return the output of ``stem``, ``stage1`` ... ``stageM`` (counted from 1) and ``head``.

        ``stem`` is not pooled yet; without a head convolution ``head`` is the last stage.
        """
        return dict(self._walk(images))

    def classify(self, head: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Return the logits for the ``head`` feature."""
        return self.classifier(self.dropout(head.mean((2, 3))))

    def set_dropout(self, rate: float) -> None:
        """Set the rate of the dropout before the classifier, from 0 to below 1."""
        self.dropout.rate.fill_(rate)

    def set_drop_path(self, rate: float) -> None:
        """Set the stochastic-depth rate: block ``i`` of ``n`` gets ``rate * i / n`` (as released)."""
        blocks = [block for stage in self.stages for block in stage.children()]
        for index, block in enumerate(blocks):
            if isinstance(block, Block) and block.drop_path is not None:
                block.drop_path.rate.fill_(rate * index / len(blocks))

    def _walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.stem(images)
        yield "stem", x
        if self.pool is not None:
            x = self.pool(x)
        for number, stage in enumerate(self.stages, start=1):
            for block in stage.children():
                x = self._run(block, x)
            yield f"stage{number}", x
        yield "head", self.head(x)

    def _recomputed_blocks(self, gradient_checkpointing: Checkpointing) -> frozenset[nn.Module]:
        """Return the blocks that the backward pass computes anew."""
        blocks = [block for stage in self.stages for block in stage.children()]
        strides = accumulate(
            (block.stride for block in self.spec.blocks()), mul, initial=self.spec.stem_stride
        )
        next(strides)  # Of what the first block is given.
        is_selective = gradient_checkpointing == "selective"
        return frozenset(
            block
            for block, stride in zip(blocks, strides, strict=True)
            if gradient_checkpointing and (stride <= _LARGE_MAPS or not is_selective)
        )

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (block in self._recomputed and self.training):
            return block(x)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _unchanged_statistics(block)

        return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _unchanged_statistics(block: nn.Module) -> Iterator[None]:
    """Recomputation must not move batch norm's running statistics a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)

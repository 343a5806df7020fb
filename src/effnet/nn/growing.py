"""Trained weights in a larger network that computes the same: Net2Net (1511.05641) for this family.

Wider: every new channel is a copy of an old one, and what reads the copies divides the old weight among them,
unevenly, so that copies part when they are trained (section 2.2, whose noise would change the function).
Deeper: a new block's branch ends in a batch norm of scale and shift 0, so that the block is its shortcut; the
branch is a copy of the block before it, where the shapes allow. Larger images need nothing.
Dimension key: C input and D output channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from effnet.arch.external import ExternalSpec
from effnet.arch.spec import Activation, BlockSpec, NetworkSpec, StageSpec
from effnet.errors import UserError
from effnet.nn.model import EfficientNet
from effnet.weights import LoadedWeights

_IDEMPOTENT = {"relu", "relu6"}
"""Activations that change nothing a second time: those of a sum whose branch is 0."""
_LEAST_SHARE = 0.5
"""Shares of a divided weight are drawn from here to 1.5, and then scaled to add up to 1."""
_SAME_OF_STAGES = ("operation", "kernel_size", "stride", "expand_ratio", "residual")
_SAME_OF_NETWORKS = ("activation", "stem_kernel_size", "stem_pooling")

_Index = Int64[Tensor, " _"]
"""Of every channel, the old one that it is a copy of."""


def grow_weights(loaded: LoadedWeights, spec: NetworkSpec, *, seed: int = 0) -> LoadedWeights:
    """Return weights of a wider or deeper network that gives the same logits in evaluation mode.

    Equal up to rounding, that is within 1e-5 in float32; in training mode their batch statistics differ.

    Args:
        loaded: Weights of the smaller network.
        spec: The larger network: the same stages with at least as many channels and blocks. Its padding,
            batch norm, input channels and classes become those of the weights.
        seed: Of which channels are copied, of how weights are divided, and of branches that nothing is like.

    Raises:
        UserError: The network is no larger form of that of the weights.
    """
    if isinstance(loaded.spec, ExternalSpec):
        raise UserError(
            f"only EfficientNets can grow, and {loaded.origin} holds the weights of {loaded.spec.name}"
        )
    old = loaded.spec
    spec = replace(
        spec,
        padding=old.padding,
        norm_epsilon=old.norm_epsilon,
        norm_momentum=old.norm_momentum,
        in_channels=old.in_channels,
        num_classes=old.num_classes,
    )
    obstacle = next(_obstacles(old, spec), "")
    if obstacle:
        raise UserError(f"{old.name} cannot grow into {spec.name}: {obstacle}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = EfficientNet(spec).state_dict()
    state = _Growth(loaded.state, old, spec, fresh, seed).state()
    return replace(loaded, state=state, spec=spec, origin=f"{loaded.origin}, grown into {spec.name}")


class _Growth:
    """One network growing into another; all that is random is drawn in the order of the layers."""

    def __init__(
        self,
        trained: Mapping[str, Tensor],
        old: NetworkSpec,
        new: NetworkSpec,
        fresh: Mapping[str, Tensor],
        seed: int,
    ) -> None:
        self.trained, self.old, self.new, self.fresh = trained, old, new, fresh
        self.generator = torch.Generator().manual_seed(seed)
        self.grown: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Return the complete state dict of the new network, in its order."""
        images = torch.arange(self.new.in_channels)
        channels = self._copies(self.old.stem_channels, self.new.stem_channels)
        self._conv_norm("stem", "stem", images, channels)
        before = list(self.old.blocks())
        for block in self.new.blocks():
            same_stage = [other for other in before if other.stage == block.stage]
            place = _place(block)
            if block.position < len(same_stage):
                other = same_stage[block.position]
                outputs = channels
                if block.position == 0 and not _adds_input(block):
                    outputs = self._copies(other.out_channels, block.out_channels)
                self._block(other, block, channels, outputs)
                channels = outputs
                continue
            model = same_stage[-1]
            if model.in_channels == model.out_channels and model.stride == 1 and not model.has_shortcut_conv:
                self._block(model, block, channels, channels)
            else:
                names = [name for name in self.fresh if name.startswith(f"{place}.")]
                self.grown |= {name: self.fresh[name] for name in names}
            for variable in ("weight", "bias"):
                name = f"{place}.project.norm.{variable}"
                self.grown[name] = torch.zeros_like(self.fresh[name])
        if self.new.head_channels:
            head = self._copies(self.old.head_channels, self.new.head_channels)
            self._conv_norm("head", "head", channels, head)
            channels = head
        self.grown["classifier.weight"] = self._divided(self.trained["classifier.weight"], channels)
        self.grown["classifier.bias"] = self.trained["classifier.bias"]
        return {name: self.grown[name].to(tensor.dtype) for name, tensor in self.fresh.items()}

    def _block(self, old: BlockSpec, new: BlockSpec, inputs: _Index, outputs: _Index) -> None:
        """Grow one block's layers, in the order in which they run."""
        source, place = _place(old), _place(new)
        names = {
            name.removeprefix(f"{source}.").split(".")[0]
            for name in self.trained
            if name.startswith(f"{source}.")
        }
        hidden = inputs
        if names & {"expand", "reduce"}:
            hidden = self._copies(old.hidden_channels, new.hidden_channels)
        for layer, (first, last) in {
            "expand": (inputs, hidden),
            "reduce": (inputs, hidden),
            "spatial": (hidden, hidden),
        }.items():
            if layer in names:
                self._conv_norm(f"{source}.{layer}", f"{place}.{layer}", first, last)
        if "depthwise" in names:
            kernels = self.trained[f"{source}.depthwise.conv.weight"]
            self.grown[f"{place}.depthwise.conv.weight"] = kernels[hidden]
            self._norm(f"{source}.depthwise", f"{place}.depthwise", hidden)
        if "squeeze_excite" in names:
            squeezed = self._copies(old.se_channels, new.se_channels)
            self._conv(f"{source}.squeeze_excite.reduce", f"{place}.squeeze_excite.reduce", hidden, squeezed)
            self._conv(f"{source}.squeeze_excite.expand", f"{place}.squeeze_excite.expand", squeezed, hidden)
        self._conv_norm(f"{source}.project", f"{place}.project", hidden, outputs)
        if "shortcut" in names:
            self._conv_norm(f"{source}.shortcut", f"{place}.shortcut", inputs, outputs)

    def _conv_norm(self, source: str, place: str, inputs: _Index, outputs: _Index) -> None:
        self._conv(f"{source}.conv", f"{place}.conv", inputs, outputs)
        self._norm(source, place, outputs)

    def _conv(self, source: str, place: str, inputs: _Index, outputs: _Index) -> None:
        self.grown[f"{place}.weight"] = self._divided(self.trained[f"{source}.weight"][outputs], inputs)
        if f"{source}.bias" in self.trained:
            self.grown[f"{place}.bias"] = self.trained[f"{source}.bias"][outputs]

    def _norm(self, source: str, place: str, channels: _Index) -> None:
        prefix = f"{source}.norm."
        for name in [name for name in self.trained if name.startswith(prefix)]:
            value = self.trained[name]
            self.grown[f"{place}.norm.{name.removeprefix(prefix)}"] = value[channels] if value.ndim else value

    def _copies(self, old: int, new: int) -> _Index:
        """Draw which channels are copied: none twice before each of the others was."""
        rounds = [torch.arange(old)]
        rounds += [torch.randperm(old, generator=self.generator) for _ in range((new - 1) // old)]
        return torch.cat(rounds)[:new]

    def _divided(self, weight: Float[Tensor, "D C ..."], inputs: _Index) -> Float[Tensor, "D _ ..."]:
        """Give each input channel its share of the weight of the channel that it is a copy of."""
        copies = torch.bincount(inputs, minlength=weight.shape[1])[inputs]
        drawn = torch.rand(len(weight), len(inputs), generator=self.generator) + _LEAST_SHARE
        sums = torch.zeros(weight.shape[:2]).index_add_(1, inputs, drawn)
        shares = torch.where(copies > 1, drawn / sums[:, inputs], 1.0)
        return weight[:, inputs] * shares.view(*shares.shape, *[1] * (weight.ndim - 2))


def _place(block: BlockSpec) -> str:
    """Return where the tensors of a block are in a state dict."""
    return f"stages.{block.stage}.{block.position}"


def _adds_input(block: BlockSpec) -> bool:
    return block.has_residual and not block.has_shortcut_conv


def _obstacles(old: NetworkSpec, new: NetworkSpec) -> Iterator[str]:
    """Yield why a network cannot hold the function of another, or nothing."""
    if len(old.stages) != len(new.stages):
        yield f"it has {len(new.stages)} stages instead of {len(old.stages)}"
        return
    yield from _obstacles_of_ends(old, new)
    for number, (one, other) in enumerate(zip(old.stages, new.stages, strict=True), start=1):
        for reason in _obstacles_of_stage(one, other, new.activation):
            yield f"its stage {number} {reason}"
    blocks = {(block.stage, block.position): block for block in new.blocks()}
    for block in old.blocks():
        if larger := blocks.get((block.stage, block.position)):
            for reason in _obstacles_of_block(block, larger):
                yield f"its stage {block.stage + 1} {reason}"


def _obstacles_of_ends(old: NetworkSpec, new: NetworkSpec) -> Iterator[str]:
    for name in _SAME_OF_NETWORKS:
        if getattr(old, name) != getattr(new, name):
            yield f"it has the {name} {getattr(new, name)} instead of {getattr(old, name)}"
    for name in ("stem_channels", "head_channels"):
        before, after = getattr(old, name), getattr(new, name)
        if after < before or (after and not before):
            yield f"it has {after} {name} instead of {before}{' or more' if before else ''}"


def _obstacles_of_stage(old: StageSpec, new: StageSpec, activation: Activation) -> Iterator[str]:
    for name in _SAME_OF_STAGES:
        if getattr(old, name) != getattr(new, name):
            yield f"has the {name} {getattr(new, name)} instead of {getattr(old, name)}"
    for name in ("channels", "repeats"):
        if getattr(new, name) < getattr(old, name):
            yield f"has {getattr(new, name)} {name} instead of {getattr(old, name)} or more"
    if new.repeats > old.repeats and not new.residual:
        yield "has more blocks, and no shortcuts as which they could begin"
    if new.repeats > old.repeats and new.operation == "bottleneck" and activation not in _IDEMPOTENT:
        yield f"has more bottlenecks, which would apply {activation} once more"


def _obstacles_of_block(old: BlockSpec, new: BlockSpec) -> Iterator[str]:
    if (old.has_residual, old.has_shortcut_conv) != (new.has_residual, new.has_shortcut_conv):
        yield f"would {'lose' if old.has_residual else 'gain'} a shortcut by its width"
    if bool(old.se_channels) != bool(new.se_channels) or new.se_channels < old.se_channels:
        yield f"has {new.se_channels} channels in squeeze-and-excitation instead of {old.se_channels} or more"

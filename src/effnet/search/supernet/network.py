"""Weights that all networks of a space share, and any of these networks run with its part of them.

A network's part of a tensor are the first channels and the centre of the kernel, so that kernel 5 contains 3,
expansion 6 contains 4 and six blocks contain five. What runs is always an ordinary `EfficientNet`.
Dimension key: N images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.nn import EfficientNet
from effnet.nn.blocks import Block
from effnet.nn.init import initialize
from effnet.nn.layers import ConvNorm
from effnet.search.supernet.envelope import Branch, Envelope

_SHELLS_KEPT = 64


class Supernet(nn.Module):
    """Parameters for every network of an envelope, drawn as released but for the blocks that can be left out.

    It has no statistics of batch norm.

    Args:
        envelope: What must fit in.
    """

    def __init__(self, envelope: Envelope) -> None:
        super().__init__()
        self.envelope = envelope
        spec = envelope.largest
        self.stem = ConvNorm(
            spec, spec.in_channels, spec.stem_channels, kernel_size=spec.stem_kernel_size, stride=2
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict({name: Block(spec, block) for name, block in forms.items()})
                for forms in envelope.blocks(stage)
            )
            for stage in range(len(spec.stages))
        )
        self.heads = nn.ModuleDict(
            {
                str(depth): ConvNorm(spec, spec.stages[depth - 1].channels, spec.head_channels)
                for depth in envelope.depths
                if spec.head_channels
            }
        )
        last = max(spec.stages[depth - 1].channels for depth in envelope.depths)
        self.classifier = nn.Linear(spec.head_channels or last, spec.num_classes)
        initialize(self)
        self._quiet_branches()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Of which network would they be? See `effnet.search.supernet.calibration`.
                module.running_mean = module.running_var = module.num_batches_tracked = None
                module.track_running_stats = False
        self._shells: dict[NetworkSpec, EfficientNet] = {}

    def forward(
        self,
        images: Float[Tensor, "N C H W"],
        spec: NetworkSpec,
        *,
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> Float[Tensor, "N K"]:
        """Run one network of the space with the batch's own statistics, as in training.

        Args:
            images: Normalised.
            spec: The network, within the envelope.
            dropout_rate: Before its classifier.
            drop_path_rate: Of its last block, see `EfficientNet.set_drop_path`.
        """
        shell = self._shell(spec)
        shell.train()
        shell.set_dropout(dropout_rate)
        shell.set_drop_path(drop_path_rate)
        logits: Tensor = functional_call(shell, self._parts(shell), (images,))
        return logits

    def extract(self, spec: NetworkSpec) -> EfficientNet:
        """Return a network of the space on its own, with a copy of its weights.

        Its statistics of batch norm are still to be found, see `effnet.search.supernet.calibration`.

        Raises:
            UserError: The network is not of the space.
        """
        network = self._new_shell(spec)
        weights = {name: part.detach().clone() for name, part in self._parts(network).items()}
        network.load_state_dict(weights, strict=False, assign=True)
        return network.requires_grad_()

    def _quiet_branches(self) -> None:
        """Let blocks that can be left out begin as identities (2003.11142 section 3.2).

        The largest networks, from which all others learn, are then as easy to train as the shallow ones.
        """
        for name, module in self.named_modules():
            # Such as stages.2.1.mbconv: stage, position, branch.
            parts = name.split(".")
            if (
                isinstance(module, Block)
                and parts[2] != "0"
                and self.envelope.forms[int(parts[1])][0].residual
            ):
                nn.init.zeros_(module.get_parameter("project.norm.weight"))

    def _shell(self, spec: NetworkSpec) -> EfficientNet:
        if spec not in self._shells:
            if len(self._shells) == _SHELLS_KEPT:
                del self._shells[next(iter(self._shells))]
            self._shells[spec] = self._new_shell(spec)
        return self._shells[spec]

    def _new_shell(self, spec: NetworkSpec) -> EfficientNet:
        """Return a network without weights, with buffers on the device of the supernet."""
        with torch.device("meta"):
            shell = EfficientNet(spec)
        for module in shell.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.zeros_like(buffer, device=self.classifier.weight.device))
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        return shell

    def _parts(self, shell: EfficientNet) -> dict[str, Tensor]:
        weights = dict(self.named_parameters())
        return {
            name: part_of(_shared(weights, name, shell.spec), parameter.shape)
            for name, parameter in shell.named_parameters()
        }


def part_of(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the part of a weight that a smaller layer has, as a view: first channels, centre of the kernel.

    Raises:
        UserError: The layer is larger, or of another kind.
    """
    if weight.ndim != len(shape) or any(want > have for want, have in zip(shape, weight.shape, strict=True)):
        raise UserError(
            f"the network has a layer of shape {list(shape)}, and the supernet's is {list(weight.shape)}; it "
            "is not of the space that the supernet was made for"
        )
    for dimension, (have, want) in enumerate(zip(weight.shape, shape, strict=True)):
        start = (have - want) // 2 if dimension >= 2 else 0
        weight = weight.narrow(dimension, start, want)
    return weight


def _shared(weights: Mapping[str, Tensor], name: str, spec: NetworkSpec) -> Tensor:
    """Return the tensor of a network's parameter: in the branch of its stage, in the head of its depth."""
    parts = name.split(".")
    if parts[0] == "stages":
        parts.insert(3, Branch.of(spec.stages[int(parts[1])]).name)
    elif parts[0] == "head":
        parts[:1] = ["heads", str(len(spec.stages))]
    shared = weights.get(".".join(parts))
    if shared is None:
        raise UserError(
            f"the supernet has no weights for {name} of {spec.name}; it is not of the space that the "
            "supernet was made for"
        )
    return shared

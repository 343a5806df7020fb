"""What training and evaluation need of a network, whoever builds its layers.

Dimension key: N images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from effnet.arch.external import AnySpec


class Network(nn.Module, ABC):
    """A classifier of images whose last layer is ``classifier``, with rates that change while it runs."""

    spec: AnySpec
    classifier: nn.Linear

    @abstractmethod
    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]: ...

    @abstractmethod
    def set_dropout(self, rate: float) -> None:
        """Set the rate of the dropout before the classifier, from 0 to below 1."""

    @abstractmethod
    def set_drop_path(self, rate: float) -> None:
        """Set the stochastic-depth rate of the network; every block has its share of it."""

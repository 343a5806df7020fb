"""Networks of timm with what progressive learning changes about them.

Dimension key: N images, C channels, H and W pixels, K classes.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from effnet.arch.external import ExternalSpec
from effnet.errors import UserError
from effnet.nn.layers import Dropout
from effnet.nn.network import Network
from effnet.weights.timm_library import build_body, drop_path_shares


class TimmNetwork(Network):
    """timm's network up to its classifier, and then dropout and a classifier as everywhere here.

    Weights are drawn by timm, those of the classifier by torch. Dropout and drop-path start at 0.

    Raises:
        UserError: timm is not installed.
    """

    spec: ExternalSpec

    def __init__(self, spec: ExternalSpec) -> None:
        super().__init__()
        self.spec = spec
        self.body, width = build_body(spec)
        self.dropout = Dropout()
        self.classifier = nn.Linear(width, spec.num_classes)
        for module in self.body.modules():
            if isinstance(module, _BatchNorm):
                module.eps = spec.norm_epsilon or module.eps
                module.momentum = spec.norm_momentum or module.momentum
        self._drop_path_shares = drop_path_shares(self.body)
        self.set_drop_path(0.0)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        return self.classifier(self.dropout(self.body(images)))

    def set_dropout(self, rate: float) -> None:
        """Set the rate of the dropout before the classifier, from 0 to below 1."""
        self.dropout.rate.fill_(rate)

    def set_drop_path(self, rate: float) -> None:
        """Set the stochastic-depth rate; timm's rule gives every block its share.

        Raises:
            UserError: The network has no stochastic depth.
        """
        if rate and not self._drop_path_shares:
            raise UserError(
                f"{self.spec.name} has no stochastic depth; set progressive.drop_path_rate=[0.0,0.0]"
            )
        for module, share in self._drop_path_shares.items():
            module.drop_prob = rate * share  # type: ignore[assignment]

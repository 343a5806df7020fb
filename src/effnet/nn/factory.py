"""From a name, a file or a spec to a network."""

from __future__ import annotations

from dataclasses import replace

from effnet.arch.family import network
from effnet.arch.spec import NetworkSpec
from effnet.nn.model import EfficientNet


def build_model(spec: NetworkSpec | str) -> EfficientNet:
    """TEMP."""
    return EfficientNet(network(spec) if isinstance(spec, str) else spec)

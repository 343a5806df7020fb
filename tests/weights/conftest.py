"""Networks whose tensors fit in memory, and states filled with numbers that differ everywhere."""

import pytest
import torch

from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.weights.names import state_shapes


@pytest.fixture
def tiny() -> NetworkSpec:
    """Every kind of block once, with widths that differ, so that no two layers could be swapped."""
    return NetworkSpec(
        name="tiny",
        stages=(
            StageSpec(
                operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=2
            ),
            StageSpec(
                operation="fused_mbconv", kernel_size=3, stride=2, expand_ratio=4, channels=16, repeats=2
            ),
            StageSpec(
                operation="mbconv",
                kernel_size=5,
                stride=2,
                expand_ratio=1,
                channels=24,
                repeats=1,
                se_ratio=0.25,
            ),
            StageSpec(
                operation="mbconv",
                kernel_size=3,
                stride=1,
                expand_ratio=6,
                channels=24,
                repeats=2,
                se_ratio=0.25,
            ),
        ),
        stem_channels=8,
        head_channels=40,
        image_size=32,
        train_size=32,
        num_classes=7,
    )


@pytest.fixture
def make_state():
    def make(spec: NetworkSpec) -> dict[str, torch.Tensor]:
        state, start = {}, 0
        for name, shape in state_shapes(spec).items():
            size = max(1, torch.Size(shape).numel())
            dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
            state[name] = torch.arange(start, start + size, dtype=torch.float64).to(dtype).reshape(shape)
            start += size
        assert start < 2**24  # all different, and exact in float32
        return state

    return make

"""A network small enough for every test here, with all kinds of layers that matter to training."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import StageSchedule, stage_schedule


class TinyNetwork(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, 5)
        self.register_buffer("drop_rate", torch.tensor(0.2), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.norm(self.stem(images)).relu().mean((2, 3)))


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    def make(*, width: int = 4, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return TinyNetwork(width).to(memory_format=torch.channels_last)

    return make


@pytest.fixture
def backward() -> Callable[[nn.Module, int], None]:
    """Fill the gradients of a network with those of the step's own batch."""

    def run(network: nn.Module, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 6, 6, generator=generator)
        labels = torch.randint(5, (8,), generator=generator)
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()

    return run


@pytest.fixture
def schedule() -> StageSchedule:
    """Three stages of 40 steps: 32, 48 and 64 pixels."""
    progressive = ProgressiveConfig(
        stages=3, image_size=(32, 64), dropout_rate=(0.1, 0.3), mixup_alpha=(0.0, 0.2)
    )
    train = TrainConfig(epochs=12.0, batch_size=10)
    return stage_schedule(progressive, train, train_images=100, train_size=64)

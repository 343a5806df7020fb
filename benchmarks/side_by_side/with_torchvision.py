"""The ways of torchvision: its networks, trained as its ``references/classification/train.py`` trains them.

The reference is no part of the package; what it builds out of torch is written out here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from effnet.weights.networks import TORCHVISION
from effnet.weights.torchvision_operators import declare_torchvision_operators
from side_by_side.case import CLASSES, DROP, EMA_DECAY, MEAN, OPTIMIZERS, SMOOTHING, STD, Case

EMA_STEPS = 32
"""``--model-ema-steps``: how often the moving average has a turn."""


def network_of(case: Case, folder: Path, **options: float) -> nn.Module:
    """Return torchvision's network with the weights of ours."""
    declare_torchvision_operators()
    import torchvision  # noqa: PLC0415

    create = getattr(torchvision.models, TORCHVISION[case.network])
    model: nn.Module = create(num_classes=CLASSES, **options)
    model.load_state_dict(load_file(folder / "torchvision.safetensors"), strict=True)
    return model


class TrainTorchvision:
    """Steps of the reference: its loss, optimizer, groups of weights and moving average.

    Args:
        case: What to time.
        folder: With weights and batch.
        is_best: Channels last, multi-tensor RMSprop, fused AdamW: no options of the reference.
    """

    def __init__(self, case: Case, folder: Path, *, is_best: bool = False) -> None:
        self._layout = torch.channels_last if is_best else torch.contiguous_format
        model = network_of(case, folder, dropout=DROP, stochastic_depth_prob=DROP)
        self._model = model.to(memory_format=self._layout)
        self._model.train()
        values = OPTIMIZERS[case.optimizer]
        groups = _groups(self._model, values.weight_decay)
        if case.optimizer == "rmsprop_tf":
            self._optimizer: torch.optim.Optimizer = torch.optim.RMSprop(
                groups,
                lr=values.rate,
                momentum=0.9,
                alpha=0.9,
                eps=values.epsilon,
                foreach=is_best or None,
            )
        else:
            self._optimizer = torch.optim.AdamW(
                groups, lr=values.rate, eps=values.epsilon, fused=is_best or None
            )
        # Its `ExponentialMovingAverage`.
        self._average = AveragedModel(
            self._model,
            avg_fn=lambda average, value, _: EMA_DECAY * average + (1 - EMA_DECAY) * value,
            use_buffers=True,
        )
        self._loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        self._step = 0
        batch = load_file(folder / "batch.safetensors")
        self._images, self._labels = batch["images"].permute(0, 3, 1, 2).contiguous(), batch["labels"]
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def check(self, steps: int) -> list[float]:
        """Return the losses of the first steps, without dropout and drop-path, and go back to the start."""
        before = {name: value.clone() for name, value in self._model.state_dict().items()}
        random = [
            module
            for module in self._model.modules()
            if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth"
        ]
        for module in random:
            module.eval()
        losses = [float(self.call()) for _ in range(steps)]
        self._model.train()
        self._model.load_state_dict(before)
        return losses

    def call(self) -> Tensor:
        """Do a step, with the normalisation of the reference's transforms in front."""
        images = self._images.float().div_(255).sub_(self._mean).div_(self._std)
        loss = self._loss(self._model(images.contiguous(memory_format=self._layout)), self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        if self._step % EMA_STEPS == 0:
            self._average.update_parameters(self._model)
        self._step += 1
        return loss.detach()


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights that decay, and norms and biases, which do not (``--norm-weight-decay 0``)."""
    decays = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


class InferTorchvision:
    """The network in evaluation mode, channels last."""

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        self._model = network_of(case, folder).eval().to(memory_format=torch.channels_last)
        self._pixels = pixels.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Answer all images."""
        return self._model(self._pixels)

    call = logits


TRAIN: dict[str, Callable[[Case, Path], Any]] = {
    "torchvision": TrainTorchvision,
    "torchvision best": partial(TrainTorchvision, is_best=True),
}
INFER: dict[str, Callable[[Case, Path, Tensor], Any]] = {"torchvision": InferTorchvision}

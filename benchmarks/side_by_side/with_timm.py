"""The ways of timm, by its own parts and as its ``train.py`` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from effnet.weights.networks import timm_name
from effnet.weights.timm_library import import_timm
from side_by_side.case import CLASSES, DROP, EMA_DECAY, MEAN, OPTIMIZERS, SMOOTHING, STD, Case, Precision

CPU = torch.device("cpu")


def network_of(case: Case, weights: Mapping[str, Tensor], **options: float) -> nn.Module:
    """Return timm's network with these weights, which have its names."""
    model: nn.Module = import_timm().create_model(
        timm_name(case.network, same_padding=True), num_classes=CLASSES, **options
    )
    model.load_state_dict(weights, strict=True)
    return model


def weights_in(folder: Path) -> dict[str, Tensor]:
    """Return the weights that ours gave."""
    return load_file(folder / "timm.safetensors")


class TrainTimm:
    """Steps of timm's ``train.py``: its loss, optimizer and moving average.

    Args:
        case: What to time.
        folder: With weights and batch.
        is_best: ``--channels-last``, multi-tensor RMSprop and fused AdamW; the defaults loop over tensors.
        precision: ``--amp --amp-dtype bfloat16``.
        compile_mode: ``--torchcompile``, a mode of ``torch.compile`` or ``off``.
        device: On which it all is.
    """

    def __init__(
        self,
        case: Case,
        folder: Path,
        *,
        is_best: bool = False,
        precision: Precision = "fp32",
        compile_mode: str = "off",
        device: torch.device = CPU,
    ) -> None:
        timm = import_timm()
        from timm.loss import LabelSmoothingCrossEntropy  # noqa: PLC0415
        from timm.optim import create_optimizer_v2  # noqa: PLC0415

        self._layout = torch.channels_last if is_best else torch.contiguous_format
        model = network_of(case, weights_in(folder), drop_rate=DROP, drop_path_rate=DROP)
        self._device, self._model = device, model.to(device).to(memory_format=self._layout)
        self._model.train()
        values = OPTIMIZERS[case.optimizer]
        options: dict[str, Any] = {"eps": values.epsilon}
        if case.optimizer == "rmsprop_tf":
            options |= {"momentum": 0.9, "alpha": 0.9} | ({"foreach": True} if is_best else {})
        elif is_best:
            options |= {"fused": True}
        self._optimizer = create_optimizer_v2(
            self._model,
            opt={"rmsprop_tf": "rmsproptf", "adamw": "adamw"}[case.optimizer],
            lr=values.rate,
            weight_decay=values.weight_decay,
            **options,
        )
        self._average = timm.utils.ModelEmaV3(self._model, decay=EMA_DECAY, use_warmup=True)
        self._loss = LabelSmoothingCrossEntropy(smoothing=SMOOTHING)
        self._step = 0
        batch = load_file(folder / "batch.safetensors")
        # As its `fast_collate` leaves them.
        self._images = batch["images"].permute(0, 3, 1, 2).contiguous().to(device)
        self._labels = batch["labels"].to(device)
        self._mean, self._std = (
            torch.tensor(values, device=device).mul(255).view(1, 3, 1, 1) for values in (MEAN, STD)
        )
        self._runner: Callable[[Tensor], Tensor] = self._model
        if compile_mode != "off":
            self._runner = torch.compile(self._model, dynamic=False, mode=compile_mode)
        self._is_bf16 = precision == "bf16"

    def check(self, steps: int) -> list[float]:
        """Return the losses of the first steps, without dropout and drop-path, and go back to the start."""
        before = {name: value.clone() for name, value in self._model.state_dict().items()}
        paths = [module for module in self._model.modules() if type(module).__name__ == "DropPath"]
        rates = [path.drop_prob for path in paths]
        drop, self._model.drop_rate = self._model.drop_rate, 0.0
        for path in paths:
            path.drop_prob = 0.0
        losses = [float(self.call()) for _ in range(steps)]
        for path, rate in zip(paths, rates, strict=True):
            path.drop_prob = rate
        self._model.drop_rate = drop
        self._model.load_state_dict(before)
        return losses

    def call(self) -> Tensor:
        """Do a step: what its `PrefetchLoader` does to a batch, then what its `train_one_epoch` does."""
        images = self._images.float().sub_(self._mean).div_(self._std)
        images = images.contiguous(memory_format=self._layout)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._is_bf16):
            loss = self._loss(self._runner(images), self._labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._step += 1
        self._average.update(self._model, step=self._step)
        return loss.detach()


class InferTimm:
    """timm's network as it is, in evaluation mode."""

    def __init__(
        self,
        case: Case,
        folder: Path,
        pixels: Tensor,
        *,
        channels_last: bool = False,
        precision: Precision = "fp32",
        is_compiled: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = network_of(case, weights_in(folder)).eval().to(memory_format=layout)
        self._pixels = pixels.contiguous(memory_format=layout)
        self._model = torch.compile(model, dynamic=False) if is_compiled else model
        self._is_bf16 = precision == "bf16"

    @torch.inference_mode()
    def logits(self) -> Tensor:
        """Answer all images."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._is_bf16):
            return self._model(self._pixels).float()

    call = logits


def onnx_file(case: Case, folder: Path) -> Path:
    """Export by timm's own function; at a fixed size and batch, which is the fastest for the runtimes."""
    file = folder / "timm.onnx"
    if not file.exists():
        import_timm()
        from timm.utils.onnx import onnx_export  # noqa: PLC0415

        model = network_of(case, weights_in(folder), exportable=True)
        example = torch.randn(case.batch, 3, case.size, case.size)
        onnx_export(model, str(file), example_input=example, check=False)
    return file


class InferOnnxRuntime:
    """ONNX Runtime with its default options on timm's own export."""

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(onnx_file(case, folder)), options, providers=["CPUExecutionProvider"]
        )
        self._given = {self._session.get_inputs()[0].name: pixels.numpy()}

    def logits(self) -> Tensor:
        """Answer all images."""
        return torch.from_numpy(self._session.run(None, self._given)[0])

    call = logits


class InferOpenvino:
    """OpenVINO on timm's own export, of a fixed shape, for the lowest latency."""

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        import openvino  # noqa: PLC0415

        core = openvino.Core()
        model = core.read_model(str(onnx_file(case, folder)))
        model.reshape(list(pixels.shape))
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled, self._pixels = core.compile_model(model, "CPU", hints), pixels.numpy()

    def logits(self) -> Tensor:
        """Answer all images."""
        return torch.from_numpy(self._compiled(self._pixels)[0])

    call = logits


TRAIN: dict[str, Callable[[Case, Path], Any]] = {
    "timm": TrainTimm,
    "timm best": partial(TrainTimm, is_best=True),
    "timm best bf16": partial(TrainTimm, is_best=True, precision="bf16"),
    "timm compiled": partial(TrainTimm, is_best=True, compile_mode="default"),
}
INFER: dict[str, Callable[[Case, Path, Tensor], Any]] = {
    "timm": InferTimm,
    "timm channels last": partial(InferTimm, channels_last=True),
    "timm bf16": partial(InferTimm, channels_last=True, precision="bf16"),
    "timm compiled": partial(InferTimm, channels_last=True, is_compiled=True),
    "timm, ONNX Runtime": InferOnnxRuntime,
    "timm, OpenVINO": InferOpenvino,
}

"""The ways themselves: training steps and answers of effnet and of timm on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from side_by_side.case import (
    CLASSES,
    DROP,
    EMA_DECAY,
    MEAN,
    OPTIMIZERS,
    SEED,
    SMOOTHING,
    STD,
    Case,
    Precision,
)
from side_by_side.ours import experiment_of
from torch import Tensor, nn

from effnet.arch import family
from effnet.data.loader import Batch
from effnet.nn import build_model
from effnet.nn.folding import fold_norms
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state, set_phase, train_step
from effnet.weights.convert import export_state
from effnet.weights.networks import timm_name
from effnet.weights.storage import write_tensors
from effnet.weights.timm_library import import_timm
from on_gpu.cases import Way

_WARMUP = 3
"""Calls before a CUDA graph is recorded."""
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def run_of(case: Case, way: Way, device: torch.device, precision: Precision) -> Experiment:
    """Return the run whose steps ``effnet train`` does with these settings on this device."""
    run = experiment_of(case, precision)
    train = replace(
        run.config.train,
        device=str(device),
        kernels=way.kernels,
        compile=way.compile,
        memory_format="channels_last",
        micro_batch_size=0,
    )
    model = replace(run.config.model, gradient_checkpointing=way.recomputing)
    return replace(run, config=replace(run.config, train=train, model=model), device=device)


class TrainOurs:
    """Steps as ``effnet train`` does them; the first way gives its weights and its batch to the others."""

    def __init__(
        self, case: Case, way: Way, folder: Path, device: torch.device, precision: Precision
    ) -> None:
        self._run = run_of(case, way, device, precision)
        self._state = initial_state(self._run)
        self._settings = self._run.schedule.stages[0]
        batch = noise_batch(self._run, self._settings, case.batch)
        weights = folder / "timm.safetensors"
        if not weights.exists():
            write_tensors(folder / "batch.safetensors", {"images": batch.images, "labels": batch.labels}, {})
            state = export_state(self._state.model.state_dict(), self._run.spec, "timm")
            write_tensors(weights, state, {})
        # As the loader's pinned memory would have brought them while the step before was computed.
        self._batch: Batch = replace(batch, images=batch.images.to(device), labels=batch.labels.to(device))
        set_phase(self._state, self._run, self._settings, is_head_only=False)

    def check(self, steps: int) -> list[float]:
        """Return the losses of some steps without dropout and drop-path; go back to the start."""
        before = {name: value.clone() for name, value in self._state.model.state_dict().items()}
        still = replace(self._settings, dropout_rate=0.0, drop_path_rate=0.0)
        set_phase(self._state, self._run, still, is_head_only=False)
        losses = [float(train_step(self._state, self._batch, self._run)) for _ in range(steps)]
        self._state.model.load_state_dict(before)
        set_phase(self._state, self._run, self._settings, is_head_only=False)
        return losses

    def call(self) -> None:
        """Do a step."""
        train_step(self._state, self._batch, self._run)


class TrainTimm:
    """Steps of timm's ``train.py`` at its best: --amp, --channels-last, multi-tensor updates."""

    def __init__(
        self, case: Case, way: Way, folder: Path, device: torch.device, precision: Precision
    ) -> None:
        timm = import_timm()
        torch.backends.cudnn.benchmark = True  # As its train.py does, and effnet in `initial_state`.
        from timm.loss import LabelSmoothingCrossEntropy  # noqa: PLC0415
        from timm.optim import create_optimizer_v2  # noqa: PLC0415

        model = _timm_network(case, drop_rate=DROP, drop_path_rate=DROP)
        model.load_state_dict(load_file(folder / "timm.safetensors"), strict=True)
        self._model = model.to(device).to(memory_format=torch.channels_last).train()
        values = OPTIMIZERS[case.optimizer]
        self._optimizer = create_optimizer_v2(
            self._model,
            opt="rmsproptf",
            lr=values.rate,
            weight_decay=values.weight_decay,
            eps=values.epsilon,
            momentum=0.9,
            alpha=0.9,
            foreach=True,
        )
        self._average = timm.utils.ModelEmaV3(self._model, decay=EMA_DECAY, use_warmup=True)
        self._loss, self._step = LabelSmoothingCrossEntropy(smoothing=SMOOTHING), 0
        batch = load_file(folder / "batch.safetensors")
        self._images = batch["images"].permute(0, 3, 1, 2).contiguous().to(device)
        self._labels = batch["labels"].to(device)
        self._mean, self._std = (
            torch.tensor(values, device=device).mul(255).view(1, 3, 1, 1) for values in (MEAN, STD)
        )
        self._device, self._precision = device, _DTYPES[precision]
        self._compiled: Callable[[Tensor], Tensor] | None = None
        if way.is_compiled:
            self._compiled = torch.compile(self._model, dynamic=False, mode=way.compile)

    def check(self, steps: int) -> list[float]:
        """Return the losses of some steps without dropout and drop-path, not compiled; go back."""
        before = {name: value.clone() for name, value in self._model.state_dict().items()}
        paths = [module for module in self._model.modules() if type(module).__name__ == "DropPath"]
        rates = [path.drop_prob for path in paths]
        compiled, self._compiled = self._compiled, None
        drop, self._model.drop_rate = self._model.drop_rate, 0.0
        for path in paths:
            path.drop_prob = 0.0
        losses = [float(self.call()) for _ in range(steps)]
        for path, rate in zip(paths, rates, strict=True):
            path.drop_prob = rate
        self._model.drop_rate, self._compiled = drop, compiled
        self._model.load_state_dict(before)
        return losses

    def call(self) -> Tensor:
        """Do a step: what its `PrefetchLoader` does to a batch, then what its `train_one_epoch` does."""
        images = self._images.float().sub_(self._mean).div_(self._std)
        images = images.contiguous(memory_format=torch.channels_last)
        is_mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision if is_mixed else None, enabled=is_mixed):
            loss = self._loss((self._compiled or self._model)(images), self._labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._step += 1
        self._average.update(self._model, step=self._step)
        return loss.detach()


class Infer:
    """Answers: network and pixels in the precision, not autocast, which would convert weights anew."""

    def __init__(
        self, case: Case, way: Way, folder: Path, device: torch.device, precision: Precision
    ) -> None:
        torch.manual_seed(SEED)
        torch.backends.cudnn.benchmark = True
        spec = replace(family.network(case.network), num_classes=CLASSES)
        ours = build_model(spec).eval()
        if way.library == "effnet":
            model: nn.Module = fold_norms(ours)
        else:
            model = _timm_network(case).eval()
            model.load_state_dict(export_state(ours.state_dict(), spec, "timm"), strict=True)
        layout: dict[str, Any] = {"memory_format": torch.channels_last}
        model = model.to(device=device, dtype=_DTYPES[precision]).to(**layout)
        pixels = torch.randn(case.batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
        self._pixels = pixels.to(device=device, dtype=_DTYPES[precision]).contiguous(**layout)
        self._model: Callable[[Tensor], Tensor] = model
        if way.is_compiled:
            self._model = torch.compile(model, dynamic=False, mode=way.compile)
        self._replay = self._recorded() if way.is_graph else None

    @torch.inference_mode()
    def _recorded(self) -> Callable[[], Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP):
                self._model(self._pixels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._model(self._pixels)

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    @torch.inference_mode()
    def call(self) -> Tensor:
        """Answer all images."""
        return self._replay() if self._replay else self._model(self._pixels)

    def check(self, steps: int) -> list[float]:
        """Return logits of the first images, ``steps`` of them."""
        return self.call()[:steps].float().flatten().tolist()


def make(
    case: Case, way: Way, folder: Path, device: torch.device, precision: Precision
) -> TrainOurs | TrainTimm | Infer:
    """Return a way that is ready to be called."""
    if case.kind == "infer":
        return Infer(case, way, folder, device, precision)
    return (TrainOurs if way.library == "effnet" else TrainTimm)(case, way, folder, device, precision)


def _timm_network(case: Case, **options: float) -> nn.Module:
    model: nn.Module = import_timm().create_model(
        timm_name(case.network, same_padding=True), num_classes=CLASSES, **options
    )
    return model

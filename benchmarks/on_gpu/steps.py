"""The ways themselves: training steps and answers of effnet and of timm on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from side_by_side import with_timm
from side_by_side.case import CLASSES, SEED, Case, Precision
from side_by_side.ours import TrainOurs, experiment_of
from torch import Tensor, nn

from effnet.arch import family
from effnet.nn import build_model
from effnet.nn.folding import fold_norms
from effnet.training.experiment import Experiment
from effnet.weights.convert import export_state
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


class TrainTimm(with_timm.TrainTimm):
    """Steps of timm's ``train.py`` at its best; the losses are compared before it is compiled."""

    def check(self, steps: int) -> list[float]:
        """Return the losses of some steps without dropout and drop-path, not compiled; go back."""
        runner, self._runner = self._runner, self._model
        losses = super().check(steps)
        self._runner = runner
        return losses


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
            model = with_timm.network_of(case, export_state(ours.state_dict(), spec, "timm")).eval()
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
    """Return a way that is ready to be called; the first one also writes what the others start from."""
    if case.kind == "infer":
        return Infer(case, way, folder, device, precision)
    if way.library == "timm":
        torch.backends.cudnn.benchmark = True  # As its train.py does, and effnet in `initial_state`.
        return TrainTimm(
            case, folder, is_best=True, precision=precision, compile_mode=way.compile, device=device
        )
    made = TrainOurs(run_of(case, way, device, precision), case.batch, folder)
    if not (folder / "timm.safetensors").exists():
        made.give(["timm"])
    return made

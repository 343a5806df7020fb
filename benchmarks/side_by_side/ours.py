"""The ways of effnet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from side_by_side.case import CLASSES, DROP, EMA_DECAY, MEAN, OPTIMIZERS, SEED, SMOOTHING, STD, Case
from torch import Tensor, nn

from effnet.api import configure, export, load
from effnet.arch import family
from effnet.arch.family import released_preprocessing
from effnet.config import Config
from effnet.data.loader import Batch
from effnet.evaluation.streaming import CPU_BATCH_SIZE
from effnet.export.engine import load_engine
from effnet.export.settings import ExportSettings
from effnet.nn import build_model
from effnet.nn.folding import fold_norms
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state, set_phase, train_step
from effnet.training.compute import tune_compute
from effnet.training.unread import prepare_unread
from effnet.weights import save_weights
from effnet.weights.convert import export_state
from effnet.weights.storage import write_tensors


def experiment_of(case: Case) -> Experiment:
    """Return the run whose steps ``effnet train`` would do; nothing is mixed, clipped or scheduled."""
    values = OPTIMIZERS[case.optimizer]
    decoupled = case.optimizer == "adamw"
    changes = {
        "progressive.stages": 1,
        "progressive.image_size": f"[{case.size},{case.size}]",
        "progressive.dropout_rate": f"[{DROP},{DROP}]",
        "progressive.drop_path_rate": f"[{DROP},{DROP}]",
        "progressive.mixup_alpha": "[0,0]",
        "progressive.cutmix_alpha": "[0,0]",
        "train.batch_size": case.batch,
        "train.seed": SEED,
        "train.label_smoothing": SMOOTHING,
        "train.device": "cpu",
        "data.train_images": 100000,
        "data.classes": CLASSES,
        "optimizer.name": case.optimizer,
        "optimizer.epsilon": values.epsilon,
        "optimizer.weight_decay": values.weight_decay,
        "optimizer.weight_decay_mode": "decoupled" if decoupled else "l2",
        "learning_rate.base": values.rate,
        "learning_rate.batch_scaling": "none",
        "learning_rate.schedule": "constant",
        "learning_rate.warmup_epochs": 0,
        "ema.decay": EMA_DECAY,
    }
    config: Config = configure(
        data="imagenet",
        model=case.network,
        recipe="scratch",
        changes=[f"{k}={v}" for k, v in changes.items()],
    )
    preprocessing = replace(released_preprocessing(family.network(case.network)), mean=MEAN, std=STD)
    return prepare_unread(replace(config, preprocessing=preprocessing))


class TrainOurs:
    """Steps as ``effnet train`` does them after ``effnet tune``."""

    def __init__(self, case: Case, folder: Path, *, compile: bool) -> None:  # noqa: A002
        run = experiment_of(case)
        if compile:
            train = replace(run.config.train, compile="default")
            run = replace(run, config=replace(run.config, train=train))
        self.tuned: dict[str, Any] = {}
        if not compile:
            tuning = tune_compute(run, lambda _: None)
            run, self.tuned = tuning.fastest.compute.applied_to(run), tuning.to_dict()["changes"]
        self._run, self._state = run, initial_state(run)
        self._settings = run.schedule.stages[0]
        self._batch: Batch = noise_batch(run, self._settings, case.batch)
        self._case, self._folder = case, folder

    def give(self) -> None:
        """Write the weights and the batch that the others start from."""
        state = export_state(self._state.model.state_dict(), self._run.spec, "timm")
        write_tensors(self._folder / "initial.safetensors", state, {})
        batch = {"images": self._batch.images, "labels": self._batch.labels}
        write_tensors(self._folder / "batch.safetensors", batch, {})

    def check(self, steps: int) -> list[float]:
        """Return the losses of the first steps, without dropout and drop-path, and go back to the start."""
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


def give_network(case: Case, folder: Path) -> None:
    """Write a network whose statistics fit its weights, once for ours and once for timm, and its images."""
    torch.manual_seed(SEED)
    spec = replace(family.network(case.network), num_classes=CLASSES)
    model = build_model(spec)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, case.size, case.size))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    preprocessing = replace(
        released_preprocessing(spec), image_size=case.size, mean=MEAN, std=STD, crop_fraction=1.0
    )
    names = tuple(f"class {number}" for number in range(CLASSES))
    save_weights(
        folder / "ours.safetensors",
        model.state_dict(),
        spec,
        class_names=names,
        preprocessing=preprocessing,
        provenance="random weights",
    )
    write_tensors(folder / "initial.safetensors", export_state(model.state_dict(), spec, "timm"), {})
    write_tensors(
        folder / "pixels.safetensors", {"pixels": torch.randn(case.batch, 3, case.size, case.size)}, {}
    )


class InferEager:
    """What ``effnet predict`` computes with: folded, channels last, several batches at a time.

    Args:
        case: What to time.
        folder: With what `give_network` wrote.
        pixels: Normalised, contiguous.
    """

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        predictor = load(folder / "ours.safetensors", device="cpu")
        assert isinstance(predictor.model, nn.Module)
        self._model = fold_norms(predictor.model)
        threads = torch.get_num_threads()
        self._size = min(CPU_BATCH_SIZE, -(-case.batch // threads))
        self._pixels = pixels
        # As `effnet.evaluation.streaming`: one image by all threads, several batches by one thread each.
        self._pool = None
        if case.batch > 1:
            self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.inference_mode()
    def _answer(self, pixels: Tensor) -> Tensor:
        return self._model(pixels.contiguous(memory_format=torch.channels_last))

    def logits(self) -> Tensor:
        """Answer all images."""
        if self._pool is None:
            return self._answer(self._pixels)
        return torch.cat(list(self._pool.map(self._answer, self._pixels.split(self._size))))

    call = logits


class InferExported:
    """What ``effnet export`` wrote, by ``effnet``'s engine."""

    def __init__(self, form: str, case: Case, folder: Path, pixels: Tensor) -> None:
        suffix = {"onnx": ".onnx", "openvino": ".xml"}[form]
        file = folder / f"ours{suffix}"
        export(folder / "ours.safetensors", file, to=[form], settings=ExportSettings(batch_size=case.batch))
        self._engine, self._pixels = load_engine(file), pixels

    def logits(self) -> Tensor:
        """Answer all images."""
        return self._engine(self._pixels)

    call = logits


TRAIN: dict[str, Callable[[Case, Path], Any]] = {
    "effnet": lambda case, folder: TrainOurs(case, folder, compile=False),
    "effnet compiled": lambda case, folder: TrainOurs(case, folder, compile=True),
}
INFER: dict[str, Callable[[Case, Path, Tensor], Any]] = {
    "effnet": InferEager,
    "effnet ONNX Runtime": lambda *given: InferExported("onnx", *given),
    "effnet OpenVINO": lambda *given: InferExported("openvino", *given),
}

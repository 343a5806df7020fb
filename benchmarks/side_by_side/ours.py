"""The ways of effnet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effnet.api import configure, load
from effnet.arch import family
from effnet.arch.family import released_preprocessing
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.data.loader import Batch
from effnet.engines import use_engine
from effnet.evaluation.predictor import Predictor
from effnet.evaluation.streaming import CPU_BATCH_SIZE
from effnet.nn import EfficientNet, build_model
from effnet.nn.folding import fold_norms
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state, set_phase, train_step
from effnet.training.unread import prepare_unread
from effnet.weights import load_weights, save_weights
from effnet.weights.convert import export_state
from effnet.weights.names import Scheme
from effnet.weights.networks import with_conventions
from effnet.weights.storage import write_tensors
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

SCHEMES: tuple[Scheme, ...] = ("timm", "torchvision", "keras")
"""Whose names the weights are written under."""


def experiment_of(case: Case, precision: Precision) -> Experiment:
    """Return the run whose steps ``effnet train`` does; nothing is mixed, clipped or scheduled.

    All that the configuration leaves open (memory format, kernels) is as a user gets it who has not run
    ``effnet tune``; the workers have a cache in which nothing is kept.
    """
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
        "train.precision": precision,
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
    """Steps as ``effnet train`` does them.

    Args:
        run: Whose steps they are.
        images: In a step.
        folder: For the weights and the batch that the others start from.
    """

    def __init__(self, run: Experiment, images: int, folder: Path) -> None:
        self._run, self._state = run, initial_state(run)
        self._settings = run.schedule.stages[0]
        batch = noise_batch(run, self._settings, images)
        # On a GPU as the loader's pinned memory would have brought them while the step before was computed.
        self._batch: Batch = replace(
            batch, images=batch.images.to(run.device), labels=batch.labels.to(run.device)
        )
        self._folder = folder
        set_phase(self._state, run, self._settings, is_head_only=False)

    @property
    def told(self) -> dict[str, Any]:
        """What the configuration came to."""
        train = asdict(self._run.config.train)
        return {name: train[name] for name in ("precision", "memory_format", "compile", "kernels")}

    def give(self, schemes: Iterable[Scheme] = SCHEMES) -> None:
        """Write the weights and the batch that the others start from.

        Args:
            schemes: Whose names the weights are written under.
        """
        state, spec = self._state.model.state_dict(), self._run.spec
        assert isinstance(spec, NetworkSpec)
        give_weights(self._folder, state, spec, schemes)
        batch = {"images": self._batch.images, "labels": self._batch.labels}
        write_tensors(self._folder / "batch.safetensors", batch, {})

    def check(self, steps: int, conventions: Scheme = "effnet") -> list[float]:
        """Return the losses of the first steps, without dropout and drop-path, and go back to the start.

        Args:
            steps: From 1.
            conventions: Of which library padding and batch norm are; where it is another one, another network
                does the steps.
        """
        run, state = self._run, self._state
        if conventions != "effnet":
            assert isinstance(run.spec, NetworkSpec)
            config = replace(run.config, train=replace(run.config.train, compile="off"))
            run = replace(run, spec=with_conventions(run.spec, conventions), config=config)
            state = initial_state(run)
        before = {name: value.clone() for name, value in state.model.state_dict().items()}
        still = replace(self._settings, dropout_rate=0.0, drop_path_rate=0.0)
        set_phase(state, run, still, is_head_only=False)
        losses = [float(train_step(state, self._batch, run)) for _ in range(steps)]
        state.model.load_state_dict(before)
        set_phase(state, run, self._settings, is_head_only=False)
        return losses

    def call(self) -> None:
        """Do a step."""
        train_step(self._state, self._batch, self._run)

    def rest(self) -> None:
        """Keep no memory for the next step but what it cannot do without."""
        self._state.optimizer.zero_grad(set_to_none=True)
        if self._state.passes is not None:
            self._state.passes.drop()


def train(case: Case, folder: Path, *, precision: Precision = "fp32", is_compiled: bool = False) -> TrainOurs:
    """Return steps on a processor.

    Args:
        case: What to time.
        folder: For the weights and the batch that the others start from.
        precision: Of autocast.
        is_compiled: By ``torch.compile``.
    """
    run = experiment_of(case, precision)
    if is_compiled:
        run = replace(run, config=replace(run.config, train=replace(run.config.train, compile="default")))
    return TrainOurs(run, case.batch, folder)


def give_weights(
    folder: Path, state: dict[str, Tensor], spec: NetworkSpec, schemes: Iterable[Scheme] = SCHEMES
) -> None:
    """Write a state dict of ours once for each library, under its names and in its layout."""
    for scheme in schemes:
        weights = export_state(state, spec, scheme)
        write_tensors(folder / f"{scheme}.safetensors", weights, {})


def give_network(case: Case, folder: Path) -> None:
    """Write a network whose statistics fit its weights, for ours and for the others, and its images."""
    torch.manual_seed(SEED)
    spec = replace(family.network(case.network), num_classes=CLASSES)
    model = build_model(spec)
    _calm(model)
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
    give_weights(folder, model.state_dict(), spec)
    write_tensors(
        folder / "pixels.safetensors", {"pixels": torch.randn(case.batch, 3, case.size, case.size)}, {}
    )


@torch.no_grad()
def _calm(model: EfficientNet) -> None:
    """Make what blocks add to their input small: else a deep random network amplifies rounding."""
    for block in model.spec.blocks():
        if block.has_residual:
            name = f"stages.{block.stage}.{block.position}.project.norm"
            model.get_submodule(name).weight.mul_(0.1)


class InferEager:
    """The folded network, channels last, several batches at a time.

    Args:
        case: What to time.
        folder: With what `give_network` wrote.
        pixels: Normalised, contiguous.
        precision: Of autocast.
    """

    def __init__(self, case: Case, folder: Path, pixels: Tensor, *, precision: Precision = "fp32") -> None:
        predictor = load(folder / "ours.safetensors", device="cpu")
        assert isinstance(predictor.model, EfficientNet)
        self._network, self._model = predictor.model, fold_norms(predictor.model)
        threads = torch.get_num_threads()
        self._size = min(CPU_BATCH_SIZE, -(-case.batch // threads))
        self._pixels, self._is_bf16 = pixels, precision == "bf16"
        # As `effnet.evaluation.streaming`: one image by all threads, several batches by one thread each.
        self._pool = None
        if case.batch > 1:
            self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    @torch.inference_mode()
    def _answer(self, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._is_bf16):
            return self._model(pixels.contiguous(memory_format=torch.channels_last)).float()

    def logits(self) -> Tensor:
        """Answer all images."""
        if self._pool is None:
            return self._answer(self._pixels)
        return torch.cat(list(self._pool.map(self._answer, self._pixels.split(self._size))))

    call = logits

    @torch.inference_mode()
    def logits_by(self, conventions: Scheme) -> Tensor:
        """Answer all images with the padding and batch norm of a library, and without anything folded."""
        spec = with_conventions(self._network.spec, conventions)
        network = EfficientNet(spec).eval()
        network.load_state_dict(self._network.state_dict())
        return network(self._pixels)


class InferDefault(InferEager):
    """What ``effnet serve`` answers with by default: the engine that is found to be the fastest here."""

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        super().__init__(case, folder, pixels)
        lines: list[str] = []
        predictor = Predictor.from_weights(load_weights(str(folder / "ours.safetensors")))
        name = use_engine(predictor, "auto", threads=torch.get_num_threads(), tell=lines.append)
        assert predictor.engine is not None
        self._engine, self.told = predictor.engine, {"engine": name, "said": lines}

    def logits(self) -> Tensor:
        """Answer all images."""
        return self._engine(self._pixels)

    call = logits


TRAIN: dict[str, Callable[[Case, Path], Any]] = {
    "effnet": train,
    "effnet bf16": partial(train, precision="bf16"),
    "effnet compiled": partial(train, is_compiled=True),
}
INFER: dict[str, Callable[[Case, Path, Tensor], Any]] = {
    "effnet": InferDefault,
    "effnet eager": InferEager,
    "effnet bf16": partial(InferEager, precision="bf16"),
}

"""The ways of Keras on TensorFlow, the backend that its networks were published with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from side_by_side.case import CLASSES, EMA_DECAY, MEAN, OPTIMIZERS, SMOOTHING, STD, Case

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow

tensorflow.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
tensorflow.config.threading.set_inter_op_parallelism_threads(torch.get_num_threads())


def network_of(case: Case, folder: Path) -> keras.Model:
    """Return Keras' network with the weights of ours; its rates of dropout and drop-path are 0.2."""
    version, variant = case.network.upper().split("-")
    create = getattr(keras.applications, f"EfficientNet{'V2' if version == 'V2' else ''}{variant}")
    options = {"include_preprocessing": False} if version == "V2" else {}
    model = create(
        weights=None,
        classes=CLASSES,
        classifier_activation=None,
        input_shape=(case.size, case.size, 3),
        **options,
    )
    weights = load_file(folder / "keras.safetensors")
    for variable in model.weights:
        if not variable.path.startswith("normalization"):
            variable.assign(weights.pop(variable.path).numpy())
    assert not weights
    return model


def pixels_of(case: Case) -> float:
    """Return by what Keras' network wants pixels multiplied: V1 divides them by 255 itself."""
    return 255.0 if case.network.startswith("v1") else 1.0


class TrainKeras:
    """Steps of ``train_on_batch`` with the optimizer's own moving average of the weights."""

    def __init__(self, case: Case, folder: Path) -> None:
        network = network_of(case, folder)
        factor = pixels_of(case)
        scale, offset = factor / (255 * STD[0]), -factor * MEAN[0] / STD[0]
        self._model = keras.Sequential([keras.layers.Rescaling(scale, offset), network])
        self._network = network
        values = OPTIMIZERS[case.optimizer]
        options: dict[str, Any] = {
            "learning_rate": values.rate,
            "epsilon": values.epsilon,
            "weight_decay": values.weight_decay,
            "use_ema": True,
            "ema_momentum": EMA_DECAY,
        }
        if case.optimizer == "rmsprop_tf":
            self._optimizer = keras.optimizers.RMSprop(rho=0.9, momentum=0.9, **options)
        else:
            self._optimizer = keras.optimizers.AdamW(**options)
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=SMOOTHING)
        batch = load_file(folder / "batch.safetensors")
        self._images = tensorflow.constant(batch["images"].numpy())
        self._labels = tensorflow.one_hot(batch["labels"].numpy(), CLASSES)
        self._model.compile(optimizer=self._optimizer, loss=self._loss)
        self.told = {"keras": keras.version(), "tensorflow": tensorflow.__version__, "precision": "fp32"}

    def check(self, steps: int) -> list[float]:
        """Return the losses of the first steps, without dropout and drop-path, and go back to the start."""
        before = self._network.get_weights()
        drops = [layer for layer in self._network.layers if isinstance(layer, keras.layers.Dropout)]
        rates = [layer.rate for layer in drops]
        for layer in drops:
            layer.rate = 0.0
        # Not as a graph: that would keep the rates.
        self._model.compile(optimizer=self._optimizer, loss=self._loss, run_eagerly=True)
        losses = []
        for _ in range(steps):
            self._model.reset_metrics()  # What it returns is the mean since.
            losses.append(self.call())
        for layer, rate in zip(drops, rates, strict=True):
            layer.rate = rate
        self._network.set_weights(before)
        self._model.compile(optimizer=self._optimizer, loss=self._loss)
        return losses

    def call(self) -> float:
        """Do a step."""
        return float(self._model.train_on_batch(self._images, self._labels))


class InferKeras:
    """The network's ``predict_on_batch``."""

    def __init__(self, case: Case, folder: Path, pixels: Tensor) -> None:
        self._model = network_of(case, folder)
        self._pixels = tensorflow.constant((pixels * pixels_of(case)).permute(0, 2, 3, 1).numpy())

    def call(self) -> np.ndarray:
        """Answer all images."""
        return self._model.predict_on_batch(self._pixels)

    def logits(self) -> Tensor:
        """Answer all images, as a tensor of torch."""
        return torch.from_numpy(self.call())


TRAIN: dict[str, Callable[[Case, Path], Any]] = {"Keras": TrainKeras}
INFER: dict[str, Callable[[Case, Path, Tensor], Any]] = {"Keras": InferKeras}

"""Read the tensors of a file of weights, whichever library wrote it; nothing in a file is ever executed."""

from __future__ import annotations

import argparse
import importlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from effnet.errors import UserError
from effnet.weights.storage import read_tensors

Tensors = dict[str, Tensor]

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # averaged weights first
_PARALLEL_PREFIX = "module."
_INDEX = ".index"
_TENSORFLOW = re.compile(
    r"(?:.*?/)?((?:stem|blocks_\d+|head)/.+/"
    r"(?:kernel|depthwise_kernel|bias|gamma|beta|moving_mean|moving_variance))(/ExponentialMovingAverage)?"
)


def read_file(path: Path) -> Tensors:
    """Read a file of weights as tensors on the CPU, under the names that it has.

    Wrappers and prefixes that say nothing about the network are removed: the dictionary around a state
    dict, ``module.`` of parallel training, the model's name and the optimizer's slots of a TensorFlow
    checkpoint. Where a file has averaged weights beside the raw ones, the averaged are read.

    Args:
        path: A ``.safetensors``, PyTorch, ``.npz`` or Keras HDF5 file, or the prefix of a TensorFlow
            checkpoint (``model.ckpt`` for ``model.ckpt.index``), told apart by their endings.

    Raises:
        UserError: The file does not exist, is damaged or of an unknown kind, or needs a library that is
            not installed.
    """
    if is_tensorflow_checkpoint(path):
        return _read_tensorflow(path)
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"cannot tell what {path} is by its ending; allowed: {', '.join(_READERS)}, or the prefix of a "
            f"TensorFlow checkpoint"
        )
    try:
        tensors = reader(path)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read, it may be damaged: {error}") from None
    if tensors and all(name.startswith(_PARALLEL_PREFIX) for name in tensors):
        return {name.removeprefix(_PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def has_known_ending(path: Path) -> bool:
    """Tell whether a path looks like a file that `read_file` can read."""
    return path.suffix.lower() in {*_READERS, _INDEX}


def is_tensorflow_checkpoint(path: Path) -> bool:
    """Tell whether a path is the prefix, or the index, of a TensorFlow checkpoint that exists."""
    index = path if path.suffix == _INDEX else path.with_name(path.name + _INDEX)
    return index.is_file()


def _read_torch(path: Path) -> Tensors:
    try:
        # timm stores its command line beside the weights, as a Namespace of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} holds more than tensors, which is never loaded because it could run code ({reason}); "
            f"save the state dict alone: torch.save(model.state_dict(), path)"
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__} where a state dict is needed")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _read_npz(path: Path) -> Tensors:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sources = _tensorflow_sources(arrays.files) or {name: name for name in arrays.files}
            return {name: torch.from_numpy(arrays[source]) for name, source in sources.items()}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} holds more than arrays of numbers: {error}") from None


def _read_keras(path: Path) -> Tensors:
    h5py = _library("h5py", path, "pip install 'effnet[keras]'")
    tensors: Tensors = {}
    with h5py.File(path, "r") as file:
        root = file.get("model_weights", file)
        if "layers" in root:
            raise UserError(
                f"{path} has the newer layout of Keras, which leaves out the names of the layers; save the "
                f"model in the older one: model.save('weights.h5')"
            )

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and "/" in name:
                layer, *_, variable = name.removesuffix(":0").split("/")
                # Keras 2 says depthwise_kernel where Keras 3 says kernel.
                tensors[f"{layer}/{variable.removeprefix('depthwise_')}"] = torch.from_numpy(np.asarray(item))

        root.visititems(visit)
    # V1 of Keras holds mean and variance of its input in a layer; they belong to the preprocessing.
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("normalization")}


def _read_tensorflow(path: Path) -> Tensors:
    prefix = str(path).removesuffix(_INDEX)
    tensorflow = _library("tensorflow", path, "pip install tensorflow-cpu")
    checkpoint = tensorflow.train.load_checkpoint(prefix)
    names = list(checkpoint.get_variable_to_shape_map())
    sources = _tensorflow_sources(names)
    if not sources:
        raise UserError(
            f"{prefix} has no variable such as stem/conv2d/kernel; checkpoints of TensorFlow 2 objects are "
            f"not known here. Its variables are {', '.join(sorted(names)[:3])}, ..."
        )
    return {name: torch.from_numpy(checkpoint.get_tensor(source)) for name, source in sources.items()}


def _tensorflow_sources(names: Iterable[str]) -> dict[str, str]:
    """Return the variable to read for each name without the model's, the averaged one where there is one."""
    matches = [match for name in sorted(names) if (match := _TENSORFLOW.fullmatch(name))]
    # Sorted, the averaged copy comes behind its variable and takes its place.
    return {match[1]: match[0] for match in matches}


def _library(name: str, path: Path, install: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is needed to read {path}: {install}") from None


_READERS: dict[str, Callable[[Path], Tensors]] = {
    ".safetensors": read_tensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".tar": _read_torch,
    ".bin": _read_torch,
    ".ckpt": _read_torch,
    ".npz": _read_npz,
    ".h5": _read_keras,
    ".hdf5": _read_keras,
}

"""Fetch timm's models from the Hugging Face hub, into its cache."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from effnet.errors import UserError
from effnet.weights.convert import import_state
from effnet.weights.files import LoadedWeights
from effnet.weights.formats import read_file
from effnet.weights.networks import released_output
from effnet.weights.timm_config import from_timm_config

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_name(source: str) -> bool:
    """Tell whether a text has the form ``owner/model``."""
    return _NAME.fullmatch(source) is not None


def load_from_hub(name: str) -> LoadedWeights:
    """Load a timm model by its name on the hub; what is in the cache is not fetched again.

    Args:
        name: Such as ``timm/tf_efficientnetv2_s.in21k_ft_in1k``.

    Raises:
        UserError: The hub cannot be reached and the cache does not have it, there is no such model, or it
            is no network of this family.
    """
    config = _fetch(name, CONFIG_FILE)
    if config is None:
        raise UserError(f"'{name}' on the hub is no timm model: it has no {CONFIG_FILE}")
    for file in WEIGHTS_FILES:
        weights = _fetch(name, file)
        if weights is not None:
            return _load(config, weights, name)
    raise UserError(f"'{name}' on the hub has neither {' nor '.join(WEIGHTS_FILES)}")


def is_timm_folder(folder: Path) -> bool:
    """Tell whether a folder has the form that `export_timm` writes."""
    return (folder / CONFIG_FILE).is_file()


def load_timm_folder(folder: Path) -> LoadedWeights:
    """Load a folder in timm's form, such as `export_timm` writes.

    Raises:
        UserError: The folder lacks a file, or its network is not of this family.
    """
    config = folder / CONFIG_FILE
    weights = next((folder / file for file in WEIGHTS_FILES if (folder / file).is_file()), None)
    if not config.is_file() or weights is None:
        raise UserError(
            f"{folder} is no folder of weights: it needs {CONFIG_FILE} and {' or '.join(WEIGHTS_FILES)}"
        )
    return _load(config, weights, str(folder))


def _load(config: Path, weights: Path, origin: str) -> LoadedWeights:
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{CONFIG_FILE} of {origin} is not JSON: {error}") from None
    spec, preprocessing, class_names = from_timm_config(document, f"{CONFIG_FILE} of {origin}")
    return LoadedWeights(
        state=import_state(read_file(weights), spec),
        spec=spec,
        class_names=class_names,
        preprocessing=preprocessing,
        origin=origin,
        output=released_output(spec.num_classes),
    )


def _fetch(name: str, file: str) -> Path | None:
    """Return the path of a file in the cache; None when the model exists without it."""
    try:
        return Path(hf_hub_download(name, file))
    except LocalEntryNotFoundError as error:
        raise _unreachable(name, error) from None
    except EntryNotFoundError:
        return None
    except RepositoryNotFoundError:
        raise UserError(
            f"'{name}' is neither a file here nor a public model on the Hugging Face hub"
        ) from None
    except Exception as error:  # the client passes on whatever its transport raises
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"cannot get '{name}' from the Hugging Face hub, and its cache here does not have it: give the path "
        f"of a file of weights, or fetch it once with a network connection ({reason})"
    )

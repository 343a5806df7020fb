"""Load weights from wherever they are, for the network that was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.family import released_preprocessing
from effnet.errors import UserError, did_you_mean
from effnet.weights.convert import detect_scheme, ends, import_state
from effnet.weights.files import LoadedWeights, read_weights
from effnet.weights.formats import has_known_ending, is_tensorflow_checkpoint, read_file
from effnet.weights.hub import is_hub_name, load_from_hub, load_timm_folder
from effnet.weights.networks import (
    PRETRAINED,
    pretrained_name,
    released_output,
    same_layers,
    with_conventions,
)
from effnet.weights.timm_library import load_timm_pretrained

# Weights under these names are the released ones, or were trained with the released preprocessing.
_RELEASED = {"keras", "keras-torch", "lukemelas", "tf"}


def load_weights(source: str, spec: AnySpec | None = None) -> LoadedWeights:
    """Load weights from a file, a folder in timm's form, or the hub.

    Args:
        source: A path that `effnet.weights.formats.read_file` can read, a folder with timm's
            ``config.json``, or a hub name such as ``timm/tf_efficientnetv2_s.in1k``. A path that exists
            wins. ``pretrained`` is the hub name of the best released weights of ``spec``.
        spec: The network asked for. It may be left out where the source tells its own.

    Returns:
        The weights. Their ``spec`` is the one asked for, with the input channels and classes of the
        weights, and with the padding and batch-norm constants they were trained with where the source or
        its naming tells them; see `fit_state` for other channels and classes.

    Raises:
        UserError: There is no such source, it cannot be read, it does not hold this network, or the
            network was left out and the source does not tell it.
    """
    if source == PRETRAINED:
        if spec is None:
            raise UserError("'pretrained' are the weights of a network; name the network")
        if isinstance(spec, ExternalSpec):
            return load_timm_pretrained(spec)
        source = pretrained_name(spec)
    path = Path(source).expanduser()
    if path.is_dir():
        loaded = load_timm_folder(path)
    elif path.exists() or is_tensorflow_checkpoint(path):
        loaded = _load_file(path, spec)
    elif is_hub_name(source) and not has_known_ending(path) and not _near(path):
        loaded = load_from_hub(source)
    else:
        raise UserError(
            f"there is no file of weights {source}; give a path that exists, or a name on the Hugging Face "
            f"hub such as timm/tf_efficientnetv2_s.in1k{_near(path)}"
        )
    return loaded if spec is None else _as_asked(loaded, spec)


def _near(path: Path) -> str:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, siblings)
    return hint if "did you mean" in hint else ""


def _load_file(path: Path, spec: AnySpec | None) -> LoadedWeights:
    if path.suffix == ".safetensors":
        try:
            own = read_weights(path)
        except OSError as error:
            raise UserError(str(error)) from None
        if own is not None:
            return own
    if spec is None:
        raise UserError(f"{path} does not tell which network it belongs to; name the network")
    if isinstance(spec, ExternalSpec):
        raise UserError(
            f"{path} does not tell that it belongs to {spec.name}; give a run, a file that effnet wrote, or "
            f"'{PRETRAINED}' for what timm has"
        )
    try:
        tensors = read_file(path)
        state = import_state(tensors, spec)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    channels, classes = ends(state)
    scheme = detect_scheme(tensors)
    conventional = with_conventions(spec, scheme)
    return LoadedWeights(
        state=state,
        spec=replace(conventional, in_channels=channels, num_classes=classes),
        class_names=None,
        preprocessing=released_preprocessing(conventional) if scheme in _RELEASED else None,
        origin=str(path),
        output=released_output(classes),
    )


def _as_asked(loaded: LoadedWeights, spec: AnySpec) -> LoadedWeights:
    found = loaded.spec
    if isinstance(found, ExternalSpec) or isinstance(spec, ExternalSpec):
        if _architecture(found) == _architecture(spec):
            return loaded
        raise UserError(f"{loaded.origin} holds the weights of {found.name}, not of {spec.name}")
    if not same_layers(found, spec):
        raise UserError(
            f"{loaded.origin} holds the weights of {found.name}, and {spec.name} has other layers; "
            "name the network of the weights"
        )
    if found.activation != spec.activation:
        raise UserError(
            f"{loaded.origin} was trained with the activation {found.activation}, and {spec.name} has "
            f"{spec.activation}"
        )
    carried = replace(
        spec,
        padding=found.padding,
        norm_epsilon=found.norm_epsilon,
        norm_momentum=found.norm_momentum,
        in_channels=found.in_channels,
        num_classes=found.num_classes,
    )
    return replace(loaded, spec=carried)


def _architecture(spec: AnySpec) -> str:
    return spec.architecture if isinstance(spec, ExternalSpec) else spec.name

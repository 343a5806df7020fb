"""timm itself, where it is installed: its networks by name, and the weights that it loads for them."""

from __future__ import annotations

from dataclasses import asdict
from types import ModuleType

from torch import nn

from effnet.arch.external import TIMM, ExternalSpec
from effnet.errors import UserError, did_you_mean
from effnet.weights.files import LoadedWeights
from effnet.weights.timm_config import preprocessing_of
from effnet.weights.torchvision_operators import declare_torchvision_operators

_BODY, _CLASSIFIER = "body.", "classifier."

_DROP_PATH_RATE = 0.5
"""At which networks are built, so that timm makes the layers; what counts is each one's share of it."""


def import_timm() -> ModuleType:
    """Return timm.

    Raises:
        UserError: It is not installed, or it cannot be used with what is.
    """
    declare_torchvision_operators()
    try:
        import timm  # noqa: PLC0415 - an extra, and seconds to import
    except (ImportError, RuntimeError) as error:
        # A torchvision of another build than torch fails with a RuntimeError.
        raise UserError(
            f"networks of timm need timm: pip install 'effnet[timm]' ({type(error).__name__}: {error})"
        ) from None
    module: ModuleType = timm
    return module


def timm_spec(name: str) -> ExternalSpec:
    """Return what a run must know about a network of timm.

    Args:
        name: As ``timm:resnet50``, or with the tag of weights, as ``timm:resnet50.a1_in1k``.

    Raises:
        UserError: timm is not installed, has no such network, or has it with several classifiers.
    """
    timm, short = import_timm(), name.removeprefix(TIMM)
    architecture = short.partition(".")[0]
    if not timm.is_model(architecture):
        raise UserError(f"timm has no network '{architecture}'{_near(architecture, timm.list_models())}")
    try:
        found = timm.get_pretrained_cfg(short, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(f"timm has no weights '{short}': {error}") from None
    config = {key: value for key, value in asdict(found).items() if value is not None}
    classifier = config.get("classifier") or "classifier"
    if not isinstance(classifier, str):
        raise UserError(f"{name} has the classifiers {', '.join(classifier)}; a network must have one")
    channels, size, _ = config.get("input_size", (3, 224, 224))
    return ExternalSpec(
        name=name,
        preprocessing=preprocessing_of(config, name),
        train_size=size,
        classifier=classifier,
        has_fixed_size=bool(config.get("fixed_input_size", False)),
        in_channels=channels,
        num_classes=config.get("num_classes", 1000),
    )


def _near(name: str, names: list[str]) -> str:
    hint = did_you_mean(name, names)
    return hint if "did you mean" in hint else "; see timm.list_models()"


def build_body(spec: ExternalSpec) -> tuple[nn.Module, int]:
    """Return timm's network without its classifier, and the width of what leaves it.

    Raises:
        UserError: timm is not installed.
    """
    timm = import_timm()
    arguments = {"num_classes": 0, "in_chans": spec.in_channels}
    try:
        body = timm.create_model(spec.timm_name, drop_path_rate=_DROP_PATH_RATE, **arguments)
    except TypeError:  # It has no stochastic depth.
        body = timm.create_model(spec.timm_name, **arguments)
    return body, getattr(body, "head_hidden_size", None) or body.num_features


def drop_path_shares(body: nn.Module) -> dict[nn.Module, float]:
    """Return the layers of stochastic depth with their share of the network's rate, by timm's own rule."""
    kind = import_timm().layers.DropPath
    return {
        module: module.drop_prob / _DROP_PATH_RATE for module in body.modules() if isinstance(module, kind)
    }


def load_timm_pretrained(spec: ExternalSpec) -> LoadedWeights:
    """Let timm load its weights of a network, over the network or from its cache.

    Raises:
        UserError: timm is not installed, or has no weights of this network.
    """
    timm = import_timm()
    try:
        model = timm.create_model(spec.timm_name, pretrained=True, in_chans=spec.in_channels)
    except (RuntimeError, OSError) as error:
        raise UserError(f"timm cannot load weights of {spec.name}: {error}") from None
    return LoadedWeights(
        state={_our_name(name, spec): tensor for name, tensor in model.state_dict().items()},
        spec=spec,
        class_names=None,
        preprocessing=spec.preprocessing,
        origin=f"{spec.name} of timm",
    )


def _our_name(name: str, spec: ExternalSpec) -> str:
    prefix = f"{spec.classifier}."
    return f"{_CLASSIFIER}{name.removeprefix(prefix)}" if name.startswith(prefix) else f"{_BODY}{name}"


def external_name(name: str, spec: ExternalSpec) -> str:
    """Return timm's name of a tensor of `effnet.nn.timm_network.TimmNetwork`."""
    if name.startswith(_CLASSIFIER):
        return f"{spec.classifier}.{name.removeprefix(_CLASSIFIER)}"
    return name.removeprefix(_BODY)

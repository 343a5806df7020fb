"""EfficientNet V1 and V2 as a whole system. Names are imported when they are first used."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnet.api import configure, evaluate, load, train
    from effnet.arch import NetworkSpec, Preprocessing, StageSpec, network, network_cost, scale
    from effnet.errors import UserError
    from effnet.evaluation.predictor import Prediction, Predictor
    from effnet.nn import EfficientNet, build_model
    from effnet.weights import load_weights, save_weights

__version__ = version("effnet")

__all__ = [
    "EfficientNet",
    "NetworkSpec",
    "Prediction",
    "Predictor",
    "Preprocessing",
    "StageSpec",
    "UserError",
    "build_model",
    "configure",
    "evaluate",
    "load",
    "load_weights",
    "network",
    "network_cost",
    "save_weights",
    "scale",
    "train",
]

# torch takes seconds to import; `effnet models` must not wait for it.
_MODULES = {
    "effnet.api": ("configure", "evaluate", "load", "train"),
    "effnet.arch": ("NetworkSpec", "Preprocessing", "StageSpec", "network", "network_cost", "scale"),
    "effnet.errors": ("UserError",),
    "effnet.evaluation.predictor": ("Prediction", "Predictor"),
    "effnet.nn": ("EfficientNet", "build_model"),
    "effnet.weights": ("load_weights", "save_weights"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'effnet' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

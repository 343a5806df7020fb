"""Update rules: TensorFlow's RMSprop, groups of parameters, and optimizer state as named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer

from effnet.config import OptimizerConfig
from effnet.errors import UserError, did_you_mean

DecayMode = Literal["l2", "decoupled"]

CLASSIFIER = "classifier."
_NORM_LAYERS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


class RMSpropTF(Optimizer):
    """RMSprop as TensorFlow computes it and as all released networks were trained.

    It differs from `torch.optim.RMSprop` in three places: epsilon is inside the root, the mean square
    starts at ones, and the learning rate is multiplied into the momentum buffer, so that a change of the
    rate does not act on past steps.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        decay: Of the mean square of the gradient.
        momentum: Of the update.
        epsilon: Added to the mean square.
        weight_decay: Strength; also a key of each group.
        weight_decay_mode: ``l2`` adds ``weight_decay * weight`` to the gradient; ``decoupled`` multiplies
            the weight by ``1 - lr * weight_decay`` before the update, as AdamW does.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        weight_decay: float = 0.0,
        weight_decay_mode: DecayMode = "l2",
    ) -> None:
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
            "weight_decay_mode": weight_decay_mode,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: Not supported; present because torch's signature has it.
        """
        assert closure is None, "RMSpropTF takes no closure"
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(params, group)

    def _update(self, params: list[Tensor], group: Mapping[str, Any]) -> None:
        grads: list[Tensor] | tuple[Tensor, ...] = [param.grad for param in params if param.grad is not None]
        slots = [self._slots(param) for param in params]
        squares = [slot["mean_square"] for slot in slots]
        updates = [slot["momentum"] for slot in slots]
        rate, decay, weight_decay = group["lr"], group["decay"], group["weight_decay"]

        if weight_decay and group["weight_decay_mode"] == "l2":
            grads = torch._foreach_add(grads, params, alpha=weight_decay)
        elif weight_decay:
            torch._foreach_mul_(params, 1 - rate * weight_decay)
        torch._foreach_mul_(squares, decay)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - decay)
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(updates, group["momentum"])
        torch._foreach_addcdiv_(updates, grads, roots, value=rate)
        torch._foreach_sub_(params, updates)

    def _slots(self, param: Tensor) -> dict[str, Tensor]:
        slots: dict[str, Tensor] = self.state[param]
        if not slots:
            slots["mean_square"] = torch.ones_like(param)
            slots["momentum"] = torch.zeros_like(param)
        return slots


def parameter_groups(model: nn.Module, config: OptimizerConfig, backbone_rate: float) -> list[dict[str, Any]]:
    """Sort all parameters by whether they decay and whether they belong to the classifier.

    Args:
        model: The network, not compiled; its classifier is the module ``classifier``.
        config: ``weight_decay_exclude`` decides what does not decay: ``norm_and_bias`` (V2 as released)
            the parameters of normalization layers and every bias, ``norm`` (V1 as released) the former
            alone, so that biases of squeeze-and-excitation and classifier decay.
        backbone_rate: Learning rate of everything but the classifier, relative to the classifier's.

    Returns:
        Up to four groups, none empty, in the order of the model's parameters: ``params``, ``names``,
        ``weight_decay`` and ``rate_scale``.
    """
    excluded = set(_excluded_from_decay(model, config))
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, param in model.named_parameters():
        decays, is_classifier = name not in excluded, name.startswith(CLASSIFIER)
        group = groups.setdefault(
            (decays, is_classifier),
            {
                "params": [],
                "names": [],
                "weight_decay": config.weight_decay if decays else 0.0,
                "rate_scale": 1.0 if is_classifier else backbone_rate,
            },
        )
        group["params"].append(param)
        group["names"].append(name)
    return list(groups.values())


def _excluded_from_decay(model: nn.Module, config: OptimizerConfig) -> Iterator[str]:
    if config.weight_decay_exclude == "none":
        return
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(prefix, recurse=False):
            is_bias = config.weight_decay_exclude == "norm_and_bias" and name.endswith("bias")
            if is_bias or isinstance(module, _NORM_LAYERS):
                yield name


def build_optimizer(model: nn.Module, config: OptimizerConfig, backbone_rate: float) -> Optimizer:
    """Build the optimizer of a run; its learning rate is 0 until `set_learning_rate`.

    Args:
        model: The network, not compiled and already on its device.
        config: The update rule.
        backbone_rate: See `parameter_groups`.

    Raises:
        UserError: Plain SGD with decoupled weight decay, which no release uses.
    """
    groups = parameter_groups(model, config, backbone_rate)
    decoupled = config.weight_decay_mode == "decoupled"
    if config.name == "rmsprop_tf":
        return RMSpropTF(
            groups,
            lr=0.0,
            decay=config.decay,
            momentum=config.momentum,
            epsilon=config.epsilon,
            weight_decay_mode=config.weight_decay_mode,
        )
    if config.name == "adamw":
        adam = AdamW if decoupled else Adam
        return adam(groups, lr=0.0, betas=config.betas, eps=config.epsilon, fused=True)
    if decoupled and config.weight_decay:
        raise UserError(
            "optimizer.name 'sgd' has no optimizer.weight_decay_mode 'decoupled'; "
            "use mode 'l2', or the optimizer 'rmsprop_tf' or 'adamw'"
        )
    return SGD(groups, lr=0.0, momentum=config.momentum, foreach=True)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group the rate for the next step, scaled by the group's ``rate_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state under ``<parameter name>/<slot>``, counters of steps included.

    Args:
        optimizer: Of `build_optimizer`. The tensors are its own, not copies; a parameter that has never
            had a gradient has none.
    """
    return {
        f"{name}/{slot}": value
        for name, param in _named_parameters(optimizer)
        for slot, value in optimizer.state.get(param, {}).items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replace the optimizer's whole state; the next step is the one that the saved optimizer would do.

    Args:
        optimizer: Of `build_optimizer` with the same configuration and network.
        tensors: Of `optimizer_tensors`, on any device.

    Raises:
        UserError: A tensor belongs to no parameter, or its shape is not its parameter's.
    """
    params = dict(_named_parameters(optimizer))
    indices = {name: index for index, name in enumerate(params)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in params:
            raise UserError(f"optimizer state for the unknown parameter '{name}'{did_you_mean(name, params)}")
        if tensor.ndim and tensor.shape != params[name].shape:
            raise UserError(
                f"optimizer state '{key}' has shape {list(tensor.shape)}, "
                f"its parameter has {list(params[name].shape)}"
            )
        state.setdefault(indices[name], {})[slot] = _laid_out_like(params[name], tensor)
    # torch decides on which device a counter of steps must be.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(param: Tensor, tensor: Tensor) -> Tensor:
    """Copy a slot into the parameter's memory format: foreach is fast only where the strides agree."""
    if not tensor.ndim:
        return tensor.clone()
    return torch.empty_like(param, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _named_parameters(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)

"""Update rules: TensorFlow's RMSprop, groups of parameters, and optimizer state as named tensors.

LAMB and LARS are those of pytorch-optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Adam, AdamW, Optimizer

from effnet.config import OptimizerConfig
from effnet.errors import UserError, did_you_mean
from effnet.kernels import Kernels
from effnet.native import has_numba
from effnet.training.portions import in_portions
from effnet.training.shards import cut_like

DecayMode = Literal["l2", "decoupled"]

CLASSIFIER = "classifier."
_NORM_LAYERS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
# LAMB keeps them to be looked at; every step computes them anew.
_NOT_STATE = frozenset({"weight_norm", "adam_norm", "trust_ratio"})


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
        by_numba: Update weights of a processor in one pass by `effnet.kernels.numba_rmsprop`, to the same up
            to rounding.
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
        by_numba: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "decay": decay,
            "momentum": momentum,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
            "weight_decay_mode": weight_decay_mode,
        }
        self._by_numba = by_numba
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
        if self._by_numba:
            params = self._update_in_one_pass(params, group)
            if not params:
                return
        grads = [param.grad for param in params if param.grad is not None]
        slots = [self._slots(param) for param in params]
        squares = [slot["mean_square"] for slot in slots]
        updates = [slot["momentum"] for slot in slots]
        for portion in in_portions(params, grads, squares, updates):
            self._update_portion(portion, group)

    def _update_in_one_pass(self, params: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
        """Return those that are left over."""
        from effnet.kernels import numba_rmsprop  # noqa: PLC0415 - Numba is optional

        rows, rest = [], []
        for param in params:
            slots = self._slots(param)
            assert param.grad is not None
            row = (param, param.grad, slots["mean_square"], slots["momentum"])
            if numba_rmsprop.can_update(row):
                rows.append(row)
            else:
                rest.append(param)
        is_l2, weight_decay = group["weight_decay_mode"] == "l2", group["weight_decay"]
        numba_rmsprop.update(
            rows,
            rate=group["lr"],
            decay=group["decay"],
            momentum=group["momentum"],
            epsilon=group["epsilon"],
            shrink=1.0 if is_l2 else 1 - group["lr"] * weight_decay,
            weight_decay=weight_decay if is_l2 else 0.0,
        )
        return rest

    def _update_portion(self, portion: list[list[Tensor]], group: Mapping[str, Any]) -> None:
        params, plain_grads, squares, updates = portion
        grads: list[Tensor] | tuple[Tensor, ...] = plain_grads
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


def parameter_groups(
    model: nn.Module, config: OptimizerConfig, backbone_rate: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Sort all parameters by whether they decay and by their learning rate.

    Args:
        model: The network, not compiled; its classifier is the module ``classifier``.
        config: ``weight_decay_exclude`` decides what does not decay: ``norm_and_bias`` (V2 as released)
            the parameters of normalization layers and every bias, ``norm`` (V1 as released) the former
            alone, so that biases of squeeze-and-excitation and classifier decay.
        backbone_rate: Learning rate of everything but the classifier, relative to the classifier's.
        layer_decay: Factor of the learning rate for each part between a part and the classifier: head 1,
            last stage 2, and so on to the stem. (1 is what all releases do.)

    Returns:
        Groups, none empty, in the order of the model's parameters: ``params``, ``names``, ``decays``,
        ``weight_decay`` and ``rate_scale``.
    """
    excluded, distances = set(_excluded_from_decay(model, config)), _distances(model)
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, param in model.named_parameters():
        decays, distance = name not in excluded, distances[_part(name)]
        group = groups.setdefault(
            (decays, distance if layer_decay != 1 else min(distance, 1)),
            {
                "params": [],
                "names": [],
                "decays": decays,
                "weight_decay": config.weight_decay if decays else 0.0,
                "rate_scale": backbone_rate * layer_decay**distance if distance else 1.0,
            },
        )
        group["params"].append(param)
        group["names"].append(name)
    return list(groups.values())


def _part(parameter: str) -> str:
    """Return the stem, the stage or the head that a parameter belongs to, as ``stages.3``."""
    first, _, rest = parameter.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdigit() else first


def _distances(model: nn.Module) -> dict[str, int]:
    """Return how many parts before the classifier each part is; the classifier is 0."""
    parts = dict.fromkeys(_part(name) for name, _ in model.named_parameters())
    backbone = [part for part in parts if not f"{part}.".startswith(CLASSIFIER)]
    before = {part: distance for distance, part in enumerate(reversed(backbone), start=1)}
    return {part: before.get(part, 0) for part in parts}


def _excluded_from_decay(model: nn.Module, config: OptimizerConfig) -> Iterator[str]:
    if config.weight_decay_exclude == "none":
        return
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(prefix, recurse=False):
            is_bias = config.weight_decay_exclude == "norm_and_bias" and name.endswith("bias")
            if is_bias or isinstance(module, _NORM_LAYERS):
                yield name


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    backbone_rate: float,
    layer_decay: float = 1.0,
    kernels: Kernels = "plain",
) -> Optimizer:
    """Build the optimizer of a run; its learning rate is 0 until `set_learning_rate`.

    Args:
        model: The network, not compiled and already on its device.
        config: The update rule.
        backbone_rate: See `parameter_groups`.
        layer_decay: See `parameter_groups`.
        kernels: With ``numba``, TensorFlow's RMSprop goes over everything once.

    Raises:
        UserError: What was asked of SGD or LARS does not exist.
    """
    groups = parameter_groups(model, config, backbone_rate, layer_decay)
    if config.name == "rmsprop_tf":
        return RMSpropTF(
            groups,
            lr=0.0,
            decay=config.decay,
            momentum=config.momentum,
            epsilon=config.epsilon,
            weight_decay_mode=config.weight_decay_mode,
            by_numba=kernels == "numba" and has_numba(),
        )
    if config.name == "adamw":
        adam = AdamW if config.weight_decay_mode == "decoupled" else Adam
        return adam(groups, lr=0.0, betas=config.betas, eps=config.epsilon, fused=True)
    if config.name == "lamb":
        return _lamb(groups, config)
    if config.weight_decay_mode == "decoupled" and config.weight_decay:
        raise UserError(
            f"optimizer.name '{config.name}' has no optimizer.weight_decay_mode 'decoupled'; "
            "use mode 'l2', or the optimizer 'rmsprop_tf', 'adamw' or 'lamb'"
        )
    if config.name == "lars":
        return _lars(groups, config)
    return SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov, foreach=True)


def _lamb(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """LAMB (1904.00962, version 3, without bias correction); what does not decay has no trust ratio."""
    from pytorch_optimizer import Lamb  # noqa: PLC0415 - half a second to import, and for large batches only

    return Lamb(
        [group | {"adam": not group["decays"]} for group in groups],
        lr=0.0,
        betas=config.betas,
        eps=config.epsilon,
        weight_decouple=config.weight_decay_mode == "decoupled",
        foreach=True,
        # Else the rate is divided by the first moment's bias, so that early steps are ten times as long.
        adam_debias=True,
    )


def _lars(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    """LARS (1708.03888); biases and the parameters of norms are updated as by SGD and do not decay."""
    from pytorch_optimizer import LARS  # noqa: PLC0415 - half a second to import, and for large batches only

    if config.weight_decay and config.weight_decay_exclude != "norm_and_bias":
        raise UserError(
            "optimizer.name 'lars' decays no biases and no parameters of norms, but "
            f"optimizer.weight_decay_exclude is '{config.weight_decay_exclude}'; use 'norm_and_bias'"
        )
    return LARS(
        groups,
        lr=0.0,
        momentum=config.momentum,
        nesterov=config.nesterov,
        trust_coefficient=config.trust_coefficient,
        foreach=True,
    )


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group the rate for the next step, scaled by the group's ``rate_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]


def set_weight_decay(optimizer: Optimizer, strength: float) -> None:
    """Give every group that decays the strength for the next step."""
    for group in optimizer.param_groups:
        if group["decays"]:
            group["weight_decay"] = strength


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
        if value is not None and slot not in _NOT_STATE
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
    return torch.empty_like(param, dtype=tensor.dtype, requires_grad=False).copy_(cut_like(tensor, param))


def _named_parameters(optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)

"""Everything a run needs before its first step, put together and checked from its configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.family import released_preprocessing
from effnet.arch.preprocessing import Preprocessing
from effnet.arch.scaling import scale
from effnet.arch.spec import NetworkSpec
from effnet.config import Config, DataConfig, ModelConfig
from effnet.data.images import DataSplit
from effnet.data.processes import ONE_PROCESS, Processes
from effnet.data.resident import ResidentImages, load_resident
from effnet.data.sources import absolute_source, open_configured
from effnet.errors import UserError
from effnet.kernels import Kernels
from effnet.nn import Network, build_model, find_spec
from effnet.nn.growing import grow_weights
from effnet.schedule.progressive import StageSchedule, first_size, image_sizes, stage_schedule
from effnet.training.parallel import check_processes
from effnet.training.tuned import with_tuned
from effnet.weights import LoadedWeights, load_weights, with_class_names

# The share of the image's short side that the published networks of 224 px see at evaluation.
_CROP_FRACTION = 0.875
_AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A resolved configuration and what it stands for."""

    config: Config
    """Resolved: nothing that the run depends on is left out."""
    spec: AnySpec
    data: DataSplit
    schedule: StageSchedule
    preprocessing: Preprocessing
    """Of evaluation and of whoever uses the trained weights; training shares its mean and deviation."""
    weights: LoadedWeights | None
    """Where training starts from; None: from scratch."""
    device: torch.device
    resident: ResidentImages | None = None
    """The training images on the device, where ``data.resident`` says so."""
    processes: Processes = ONE_PROCESS
    """Which train together."""

    @property
    def autocast(self) -> torch.dtype | None:
        """What the network is computed in, wherever that is safe; None: in single precision throughout."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.config.train.precision)

    @property
    def kernels(self) -> Kernels:
        """What `effnet.kernels` computes."""
        kernels = self.config.train.kernels
        return "plain" if kernels == "auto" else kernels

    def build_model(self) -> Network:
        """Return the network on its device, freshly drawn from the seed or from the loaded weights."""
        torch.manual_seed(self.config.train.seed)
        model = build_model(
            self.spec,
            weights=self.weights,
            class_names=self.data.class_names,
            gradient_checkpointing=self.config.model.gradient_checkpointing,
            kernels=self.kernels,
            classifier_bias=self._classifier_bias(),
        )
        is_last = self.config.train.memory_format != "contiguous"
        layout = torch.channels_last if is_last else torch.contiguous_format
        return model.to(self.device).to(memory_format=layout)  # type: ignore[call-overload]

    def _classifier_bias(self) -> float:
        """Return where the biases of new classes begin (`headbias` of the release)."""
        is_prior = self.config.train.classifier_bias == "prior"
        return -math.log(self.spec.num_classes - 1) if is_prior else 0.0


def network_of(config: ModelConfig) -> AnySpec:
    """Return the network that a configuration names, scaled and changed as it says.

    Raises:
        UserError: There is no such network or file, or it cannot be changed so.
    """
    spec = find_spec(config.network)
    if isinstance(spec, ExternalSpec):
        _check_external(spec, config)
        return _with_constants(spec, config)
    if (config.width, config.depth) != (1.0, 1.0):
        spec = scale(spec, width=config.width, depth=config.depth)
    spec = replace(spec, activation=config.activation or spec.activation)
    spec = spec if config.residual else spec.with_stages(residual=False)
    return _with_constants(spec, config)


def _check_external(spec: ExternalSpec, config: ModelConfig) -> None:
    default = ModelConfig()
    for key in ("width", "depth", "activation", "padding", "residual"):
        if getattr(config, key) != getattr(default, key):
            raise UserError(
                f"model.{key} changes the layers of EfficientNets, and {spec.name} is none; leave it out"
            )


def _with_constants(spec: AnySpec, config: ModelConfig) -> AnySpec:
    """Apply what may differ from the network that weights were trained in."""
    if isinstance(spec, ExternalSpec):
        return replace(
            spec,
            norm_epsilon=config.norm_epsilon or spec.norm_epsilon,
            norm_momentum=config.norm_momentum or spec.norm_momentum,
        )
    return replace(
        spec,
        padding=config.padding or spec.padding,
        norm_epsilon=config.norm_epsilon or spec.norm_epsilon,
        norm_momentum=config.norm_momentum or spec.norm_momentum,
    )


def sizes_needed(config: Config) -> tuple[tuple[int, ...], int]:
    """Return what sizes of images a run will want, by its configuration alone.

    Returns:
        The image size of each stage, cooldown excepted, and the short side from which evaluation does not
        enlarge an image, in pixels. Weights to start from may ask for another one than their network.

    Raises:
        UserError: There is no such network or file.
    """
    spec, config = network_of(config.model), resolve_alone(config)
    preprocessing = config.preprocessing or released_preprocessing(spec)
    evaluated_side = math.ceil(preprocessing.image_size / preprocessing.crop_fraction)
    sizes = image_sizes(config.progressive, spec.train_size)
    held = (first_size(config.progressive, spec.train_size),) if config.progressive.hold_share else ()
    return (*held, *sizes), evaluated_side


def resolve_alone(config: Config) -> Config:
    """Return a configuration with its paths absolute, and with what the network alone decides.

    Raises:
        UserError: There is no such network or file.
    """
    return _resolve(config, network_of(config.model), None)


def prepare_experiment(
    config: Config,
    *,
    load: bool = True,
    data: DataSplit | None = None,
    resident: ResidentImages | None = None,
    processes: Processes = ONE_PROCESS,
) -> Experiment:
    """Open the data, choose network, weights, stages and device, and resolve the configuration.

    Args:
        config: As given by the user.
        load: Whether to load ``model.weights``; a run that is resumed has its own.
        data: The images, where they are open already.
        resident: Those to train on, where ``data.resident`` wants them on the device and they are there.
        processes: Which train together.

    Raises:
        UserError: Something in the configuration cannot be had.
    """
    device = choose_device(config.train.device, processes)
    _check_weights_are_there(config)
    spec = network_of(config.model)
    weights = _load(config.model, spec) if load and config.model.weights else None
    if weights is not None:
        if config.model.weights_class_names:
            weights = with_class_names(weights, config.model.weights_class_names, "model.weights_class_names")
        spec = _with_constants(weights.spec, config.model)
    if data is None:
        data = open_configured(config.data)
    _check_classes(config.data, len(data.class_names))
    spec = replace(spec, num_classes=len(data.class_names))
    config = _resolve(config, spec, weights)
    preprocessing = config.preprocessing or released_preprocessing(spec)
    schedule = stage_schedule(
        config.progressive,
        config.train,
        train_images=len(data.train.labels),
        train_size=spec.train_size,
    )
    sizes = tuple(stage.image_size for stage in schedule.stages)
    _check_sizes(spec, (*sizes, preprocessing.image_size))
    config = with_tuned(
        config,
        spec,
        sizes,
        device,
        precision=default_precision(device),
        is_alone=processes.count == 1,
    )
    smallest = min(stage.batch_size for stage in schedule.stages)
    check_processes(config, processes, smallest_batch=smallest)
    if config.data.resident and resident is None:
        resident = load_resident(data.train, config.data, device)
    return Experiment(
        config=config,
        spec=spec,
        data=data,
        schedule=schedule,
        preprocessing=preprocessing,
        weights=weights,
        device=device,
        resident=resident if config.data.resident else None,
        processes=processes,
    )


def _load(config: ModelConfig, spec: AnySpec) -> LoadedWeights:
    """Load the weights that a run starts from, grown where they are of a smaller network."""
    if not config.grow_from:
        return load_weights(config.weights, spec)
    if isinstance(spec, ExternalSpec):
        raise UserError(f"only EfficientNets can grow, and {spec.name} is none; leave model.grow_from out")
    small = None if config.grow_from == _AUTO else find_spec(config.grow_from)
    return grow_weights(load_weights(config.weights, small), spec)


def _check_weights_are_there(config: Config) -> None:
    """Refuse what only means something for loaded weights; the rest of fine-tuning works without them."""
    needing = {
        "model.weights_class_names": bool(config.model.weights_class_names),
        "model.grow_from": bool(config.model.grow_from),
        "train.freeze_norm": config.train.freeze_norm,
    }
    for key, is_set in needing.items():
        if is_set and not config.model.weights:
            raise UserError(
                f"{key} is set, but there are no weights that it could be about; give model.weights, or "
                "leave it out"
            )


def _check_sizes(spec: AnySpec, sizes: tuple[int, ...]) -> None:
    if isinstance(spec, ExternalSpec) and spec.has_fixed_size and set(sizes) != {spec.train_size}:
        size = spec.train_size
        raise UserError(
            f"{spec.name} takes images of {size} px only; set progressive.stages=1, "
            f"progressive.image_size=[{size},{size}] and evaluate.image_size={size}"
        )


def _check_classes(config: DataConfig, found: int) -> None:
    if config.classes not in {0, found}:
        raise UserError(
            f"the recipe is for data with {config.classes:,} classes (data.classes), but '{config.source}' "
            f"has {found:,}; give other data, or --set data.classes=0 to train on it nevertheless"
        )


def choose_device(name: str, processes: Processes = ONE_PROCESS) -> torch.device:
    """Return the device of that name; ``auto`` is the first GPU, or the processor without one.

    Of several processes, each has the GPU of its number on its machine.

    Raises:
        UserError: The machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UserError(f"train.device must be auto, cpu, cuda or cuda:N, got '{name}'")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"train.device is '{name}', but this machine shows {torch.cuda.device_count()} CUDA devices"
        )
    return (
        torch.device(device.type, processes.local_rank)
        if device.type == "cuda" and processes.count > 1
        else device
    )


def supports_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 itself; where it is imitated, it is many times slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # `torch.ops.mkldnn._is_mkldnn_bf16_supported` also says so of processors that imitate it.
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(has.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def default_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Return what is computed in where nothing was measured.

    On processors that is fp32: bf16 is faster there for some networks, and slower for others.
    """
    return "bf16" if device.type == "cuda" and supports_bf16(device) else "fp32"


def _resolve(config: Config, spec: AnySpec, weights: LoadedWeights | None) -> Config:
    """Fill in all that depends on the network and on the weights, so that a resumed run needs neither."""
    sizes = config.progressive.image_size
    if sizes is None:
        only_last = config.progressive.mode == "staged" and config.progressive.stages == 1
        is_fixed = only_last and not config.progressive.hold_share
        first = spec.train_size if is_fixed else first_size(config.progressive, spec.train_size)
        sizes = (first, spec.train_size)
    preprocessing = _preprocessing(config, spec, weights, train_size=sizes[1])
    network = config.model.network
    return replace(
        config,
        data=replace(
            config.data,
            source=absolute_source(config.data.source),
            class_names=_absolute(config.data.class_names),
        ),
        model=replace(
            config.model,
            network=_absolute(network) if network.endswith(".json") else network,
            weights=_absolute(config.model.weights),
            grow_from=_absolute(config.model.grow_from),
            weights_class_names=_absolute(config.model.weights_class_names),
            padding=spec.padding if isinstance(spec, NetworkSpec) else None,
            norm_epsilon=spec.norm_epsilon,
            norm_momentum=spec.norm_momentum,
        ),
        progressive=replace(config.progressive, image_size=sizes),
        evaluate=replace(
            config.evaluate,
            image_size=preprocessing.image_size,
            crop_mode=preprocessing.crop_mode,
            interpolation=preprocessing.interpolation,
        ),
        preprocessing=preprocessing,
    )


def _absolute(name_or_path: str) -> str:
    """Return a path that holds in any folder; what is no path, such as a hub name, stays as it is."""
    path = Path(name_or_path).expanduser()
    return str(path.resolve()) if name_or_path and path.exists() else name_or_path


def _preprocessing(
    config: Config, spec: AnySpec, weights: LoadedWeights | None, *, train_size: int
) -> Preprocessing:
    given = config.preprocessing or (weights.preprocessing if weights else None)
    if given and len(given.mean) != spec.in_channels:
        raise UserError(
            f"preprocessing.mean and std need {spec.in_channels} values, one a channel, got {len(given.mean)}"
        )
    result = given or released_preprocessing(spec)
    size = config.evaluate.image_size or (result.image_size if given else train_size)
    crop_mode = config.evaluate.crop_mode or result.crop_mode
    is_released = (size, crop_mode) == (result.image_size, result.crop_mode)
    crop_fraction = result.crop_fraction if given or is_released else _CROP_FRACTION
    return replace(
        result,
        image_size=size,
        crop_mode=crop_mode,
        interpolation=config.evaluate.interpolation or result.interpolation,
        crop_fraction=1.0 if crop_mode == "squash" else crop_fraction,
    )

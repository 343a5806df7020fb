"""The one typed configuration of a run: every value has a unit, a range and a default.

A function receives its section, never the root. Recipes and run directories hold it as TOML; see
`effnet.recipes` for reading and for ``--set``.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.preprocessing import CropMode, Interpolation, Preprocessing
from effnet.arch.spec import SPEC_CONFIG, Activation, Output, Padding, Rate

Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

Coupled = Literal[
    "randaugment_magnitude",
    "mixup_alpha",
    "cutmix_alpha",
    "erasing_probability",
    "dropout_rate",
    "drop_path_rate",
]
COUPLED: tuple[Coupled, ...] = get_args(Coupled)
"""All that Algorithm 1 can let grow with the image size: a pair of `ProgressiveConfig` and a value of
`effnet.schedule.progressive.StageSettings`, each."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ModelConfig:
    """Which network, and what to change about it."""

    network: str = "v2-b0"
    """A name of the family, or the path of a spec in JSON."""
    width: Positive = 1.0
    """Compound scaling's width coefficient, applied to the network."""
    depth: Positive = 1.0
    """Compound scaling's depth coefficient, applied to the network."""
    activation: Activation | None = None
    """Overrides the network's own."""
    padding: Padding | None = None
    """Overrides the network's own."""
    norm_epsilon: Positive | None = None
    """Overrides the network's own."""
    norm_momentum: Positive | None = None
    """Overrides the network's own; PyTorch's convention."""
    residual: bool = True
    """False removes every identity shortcut (an ablation)."""
    weights: str = ""
    """A file, a hub name such as ``timm/tf_efficientnetv2_s.in1k``, or ``pretrained``: the best released
    weights of the network. Empty: from scratch."""
    weights_class_names: str = ""
    """A file with the names of the weights' classes, one a line in the order of the logits, for weights that
    bring none. Classes whose names the data shares keep their rows of the classifier."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass to save memory."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class DataConfig:
    """Which images, how they are split, and how a training crop is drawn."""

    source: str = "digits"
    """A folder of class folders, of parquet files or of tar files; a prepared store or its address;
    ``digits``; or ``hf:`` and a name on the Hugging Face hub."""
    train_split: str = ""
    """Names of the splits to train on, as ``train`` or ``train+validation``; empty: ``train``."""
    val_split: str = ""
    """Names of the splits to validate on; empty: the first of ``val``, ``validation``, ``valid`` and ``test``
    that there is and that is not trained on."""
    image_column: str = ""
    """Of a table; empty: chosen by type and name."""
    label_column: str = ""
    """Of a table; empty: chosen by type and name, such as ``fine_label`` of CIFAR-100."""
    class_names: str = ""
    """A file with the names of the classes 0, 1, ... one a line, for data that only has numbers. Empty: the
    classes are those that the data names, or that occur in it."""
    streaming: bool = False
    """Read a data set of the hub where it is, a row group at a time, instead of downloading it first."""
    train_images: NonNegativeInt = 0
    """Size of the training split, to plan a run without its data; 0: count the data."""
    classes: NonNegativeInt = 0
    """How many classes the data must have, so that a recipe for one data set does not train on another by
    mistake; 0: any number."""
    val_fraction: Fraction = 0.2
    """Share of each class held out where the data has no validation split of its own."""
    max_train_images: NonNegativeInt = 0
    """Train on about that many images, of each class its share; 0: on all. Validation keeps its own."""
    split_seed: Seed = 0
    """Of the draws of ``val_fraction`` and ``max_train_images``."""
    workers: NonNegativeInt = 0
    """Threads that prepare images; 0: one for each processor."""
    resident: bool = False
    """Keep all training images on the device as pixels, and cut, mirror and RandAugment them there: for sets
    that are small and whose images have one size, such as CIFAR. What is drawn does not depend on it."""
    crop_mode: Literal["random", "squash"] = "random"
    """Of training: a part of the image, drawn by ``crop_area`` and ``crop_aspect``; or the whole image,
    squashed, as in the released fine-tuning."""
    crop_area: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest area of a training crop, as a share of the image."""
    crop_aspect: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width / height of a training crop."""
    flip: bool = True
    """Mirror half of the training images left to right."""
    interpolation: Interpolation = "bilinear"
    """Of training crops; evaluation follows the weights' preprocessing."""
    antialias: bool = False
    """Whether the filter of training crops widens when it shrinks; the releases do not."""
    max_enlargement: Annotated[float, Field(ge=1.0)] = 2.0
    """Of a prepared store, a training crop is cut from the smallest copy that is not smaller than the stage's
    images and in which the crop needs to be enlarged by no more than this factor."""
    damaged: Literal["skip", "repair"] = "skip"
    """``repair``: of a JPEG or PNG file that breaks off, train on what there is, with grey for the rest; else
    it is replaced by another image. Both are reported, and evaluation leaves such files out."""
    max_bad_fraction: NonNegative = 0.05
    """Stop when more than this share of the images cannot be read, or had to be repaired."""

    def __post_init__(self) -> None:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area must satisfy 0 < smallest <= largest <= 1, got {[low, high]}")
        if self.crop_aspect[0] > self.crop_aspect[1]:
            raise ValueError(f"crop_aspect must be [smallest, largest], got {list(self.crop_aspect)}")


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class AugmentConfig:
    """What is done to a training image behind its crop."""

    method: Literal["randaugment", "autoaugment", "randaugment_or_autoaugment", "trivialaugment"] = (
        "randaugment"
    )
    """``randaugment_or_autoaugment`` draws for each image which of the two it gets. AutoAugment and
    TrivialAugment have strengths of their own, and no magnitude."""
    operations: NonNegativeInt = 2
    """RandAugment operations an image; 0 switches it off. AutoAugment has at most two, TrivialAugment one."""
    policy: Literal["release", "paper", "relative"] = "release"
    """Operations and arithmetic, see `effnet.data.randaugment`, `effnet.data.autoaugment` and
    `effnet.data.trivialaugment`."""
    cutout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Cover a square of each image with noise; half its side as a share of the image's. The released
    fine-tuning has 0.25; 0 switches it off."""
    repeats: PositiveInt = 1
    """Repeated augmentation (1901.09335): as many samples that follow each other are views of one image, each
    with draws of its own. An epoch keeps its number of samples, so it has fewer images."""
    place: Literal["auto", "worker", "device"] = "auto"
    """Where images are mirrored and augmented: one by one in the threads that decode them, or a batch at a
    time where the network is. What is drawn does not depend on it. ``auto``: what ``effnet tune`` found for
    these images, else ``worker``."""
    cutmix_label: Literal["area", "batch_mean"] = "area"
    """Weight of CutMix's labels: each image's own pasted area, or the batch's mean (as released)."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ProgressiveConfig:
    """Algorithm 1 of 2104.00298: each pair is the value of the first and of the last stage."""

    mode: Literal["staged", "linear", "random"] = "staged"
    """``staged``: as many stages of equal length as ``stages`` says; one stage is the constant mode.
    ``linear``: a stage for each size between the first and the last. ``random``: every ``redraw_epochs`` a
    size between the first and the last is drawn, whatever the progress of the run (2104.00298 table 13, after
    1908.08986)."""
    stages: PositiveInt = 4
    """Of mode ``staged``."""
    redraw_epochs: Positive = 8.0
    """Of mode ``random``."""
    cooldown_epochs: NonNegative = 0.0
    """Epochs at the end of the run with the last size and the last values, behind all that ``mode`` does."""
    coupled: tuple[Coupled, ...] = COUPLED
    """What changes with the image size; what is left out has its last value throughout. ``[]`` is progressive
    resizing without adaptive regularization."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Pixels; left out: from 128 (or less, if the network is smaller) to the network's training size."""
    size_rule: Literal["paper", "release"] = "paper"
    """Of mode ``staged``. ``paper``: the first stage has the first size. ``release``: stage i of M has
    (i + 1) / M of the way, so that the first size is never used."""
    size_multiple: PositiveInt = 1
    """Round image sizes down to a multiple of this, the last one excepted. In the modes ``linear`` and
    ``random`` the sizes are all such multiples, and the last one."""
    randaugment_magnitude: tuple[NonNegative, NonNegative] = (5.0, 10.0)
    mixup_alpha: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    cutmix_alpha: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    erasing_probability: tuple[Rate, Rate] = (0.0, 0.0)
    """Share of the images of which a rectangle is covered with noise (1708.04896)."""
    dropout_rate: tuple[Rate, Rate] = (0.2, 0.2)
    drop_path_rate: tuple[Rate, Rate] = (0.2, 0.2)
    batch_rule: Literal["constant", "pixels"] = "constant"
    """``pixels``: smaller images come in larger batches, so that a batch keeps its number of pixels; the
    learning rate grows with them as ``batch_scaling`` says."""

    def __post_init__(self) -> None:
        if self.image_size and self.image_size[0] > self.image_size[1]:
            raise ValueError(
                f"image_size must be [first, last] with first <= last, got {list(self.image_size)}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class TrainConfig:
    """How long, in which batches and with which arithmetic."""

    epochs: Positive = 30.0
    min_steps: NonNegativeInt = 0
    """Train longer than ``epochs`` where that many steps are not reached."""
    batch_size: PositiveInt = 64
    """Images a step at the last stage's size, over all processes."""
    micro_batch_size: NonNegativeInt = 0
    """Most images that a process runs through the network at once; it adds up the gradients of its share of
    a step's images. 0: its whole share, or what is found before the run to fit on its GPU."""
    seed: Seed = 0
    loss: Output = "softmax"
    """``softmax``: cross-entropy; an image's labels share a weight of 1. ``sigmoid``: binary cross-entropy of
    each class, summed over the classes; probabilities are then independent of each other."""
    classifier_bias: Literal["zero", "prior"] = "zero"
    """Where the biases of new classes begin. ``prior``: at -log(classes - 1), so that a sigmoid gives each
    class a probability of 1 / classes, and not 1 / 2."""
    label_smoothing: Rate = 0.1
    gradient_clip: NonNegative = 0.0
    """Largest global norm of the gradient; 0 switches clipping off."""
    adaptive_clip: NonNegative = 0.0
    """Largest length of a unit's gradient relative to its weights', classifier excepted (AGC, 2102.06171,
    where it is 0.01 to 0.16); comes before ``gradient_clip``. 0 switches it off."""
    on_non_finite: Literal["skip", "lower", "stop"] = "skip"
    """At a step where a loss, gradient or weight is not finite, the run goes back to its last checkpoint and
    leaves that step out, or halves the learning rate from there on, or stops."""
    max_non_finite: PositiveInt = 3
    """Such steps between two checkpoints that are answered in this way; one more ends the run."""
    head_epochs: NonNegative = 0.0
    """Epochs at the start in which only the classifier learns."""
    backbone_rate: NonNegative = 1.0
    """Learning rate of everything but the classifier, relative to the classifier's."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Multiplies the learning rate once more for each part that lies before another: head, last stage, ...,
    first stage, stem; on top of ``backbone_rate``."""
    freeze_norm: bool = False
    """Keep the statistics of batch norm as they were loaded, and normalise with them."""
    early_stop_epochs: NonNegative = 0.0
    """Stop at the first evaluation that ends so many epochs, counted over all stages, without an improvement
    of the validation accuracy; 0: never."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto``: what ``effnet tune`` found for this network and device; else bf16 autocast on a GPU that has
    it, else fp32. ``fp16`` scales the loss, and leaves out steps whose gradients are not finite."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """``auto``: what ``effnet tune`` found, else ``channels_last``."""
    compile: Literal["auto", "off", "default", "reduce-overhead", "max-autotune-no-cudagraphs"] = "auto"
    """Mode of ``torch.compile``, which compiles the network once for each image size. ``auto``: what ``effnet
    tune`` found, else ``off``."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class DistributedConfig:
    """How several processes, started by torchrun, train one network; one process alone takes no notice."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """``ddp``: each process has the whole network. ``fsdp``: weights, their average and the optimizer's state
    are cut into one part for each process, for networks that one device has no room for."""
    norm: Literal["local", "group", "all"] = "local"
    """Over whose images batch norm takes its statistics while training: those of its own process, those of a
    group of processes, as on TPU, or those of all. Moving statistics are always the mean over all."""
    norm_group: PositiveInt = 8
    """Consecutive processes in a group of ``norm = "group"``; as released, where there are as many."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class OptimizerConfig:
    """Update rule and weight decay."""

    name: Literal["rmsprop_tf", "sgd", "adamw", "lamb", "lars"] = "rmsprop_tf"
    """``rmsprop_tf`` is TensorFlow's: epsilon inside the root, slot from ones, rate inside the momentum."""
    momentum: Rate = 0.9
    """Of rmsprop_tf, sgd and lars."""
    nesterov: bool = False
    """Look ahead along the momentum; of sgd and lars."""
    decay: Rate = 0.9
    """Of the mean square in rmsprop_tf."""
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    """Of adamw and lamb."""
    epsilon: Positive = 1e-3
    """Of rmsprop_tf, adamw and lamb."""
    trust_coefficient: Positive = 1e-3
    """Of lars: the length of a step relative to that of the weights, at a learning rate of 1."""
    weight_decay: NonNegative = 1e-5
    weight_decay_mode: Literal["l2", "decoupled"] = "l2"
    """``l2`` adds the decayed weight to the gradient (as released), or, as lamb's paper has it, to the update
    before its trust ratio; ``decoupled`` shrinks the weight."""
    weight_decay_exclude: Literal["norm_and_bias", "norm", "none"] = "norm_and_bias"
    """``norm_and_bias`` is the V2 release's rule, ``norm`` the V1 release's. What does not decay has no trust
    ratio in lamb and lars."""

    def __post_init__(self) -> None:
        if self.nesterov and (self.name not in {"sgd", "lars"} or not self.momentum):
            raise ValueError(
                f"nesterov needs the optimizer sgd or lars with momentum, got {self.name} with a momentum of "
                f"{self.momentum:g}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class LearningRateConfig:
    """The learning rate as a function of the step."""

    base: Positive = 0.016
    """Peak rate for a batch of ``base_batch_size``."""
    base_batch_size: PositiveInt = 256
    batch_scaling: Literal["linear", "sqrt", "none"] = "linear"
    """How the peak rate grows with the batch: in proportion, with its square root, or not at all."""
    schedule: Literal["exponential", "cosine", "linear", "constant"] = "exponential"
    """``exponential`` is a staircase; ``cosine`` and ``linear`` fall to 0 at the end of the run."""
    counted_from: Literal["start", "warmup"] = "start"
    """Where the schedule begins: at step 0 (as released, so that the rate jumps when the warm-up ends), or
    where the warm-up ends."""
    warmup_epochs: NonNegative = 5.0
    """Rise linearly from 0."""
    decay_rate: Fraction = 0.97
    decay_epochs: Positive = 2.4
    minimum: NonNegative = 0.0
    """The rate never falls below it, warm-up excepted."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class EmaConfig:
    """Moving average of the weights and of batch norm's statistics, which is what gets evaluated."""

    decay: Rate = 0.9999
    """0 switches it off."""
    warmup: bool = True
    """Use min(decay, (1 + step) / (10 + step)), as TensorFlow does."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class EvaluateConfig:
    """How a network is evaluated while it trains and afterwards."""

    image_size: PositiveInt | None = None
    """Pixels; left out: the preprocessing of the weights, or the last training size from scratch."""
    crop_mode: CropMode | None = None
    """Left out: the preprocessing of the weights."""
    batch_size: PositiveInt = 64
    every_epochs: Positive = 1.0
    """The end of the run and, in mode ``staged``, of each stage are always evaluated."""
    raw: bool = False
    """Evaluate the weights themselves as well where there is a moving average of them, which can be behind in
    short runs; the best weights are still the average's."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class CheckpointConfig:
    """When the state of a run is saved, and which of the saved states are kept."""

    every_minutes: Positive = 5.0
    """Save at least this often, besides each evaluation."""
    keep_last: PositiveInt = 2
    """Newest checkpoints to keep: where one is damaged, the run continues from the one before."""
    keep_stage_ends: bool = True
    """Also keep the checkpoint at the end of each stage, from which the next one can be tried again."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class TrackingConfig:
    """Where else the metrics of a run go, besides its ``metrics.jsonl``."""

    tensorboard: bool = True
    """Write the run's folder ``tensorboard``. To show it, the package ``tensorboard`` is needed as well."""
    wandb: str = ""
    """Project at Weights & Biases; empty: none. Needs the extra ``wandb``, and its environment variables say
    who and where, as ``WANDB_MODE=offline``."""
    mlflow: str = ""
    """Experiment at MLflow; empty: none. Needs the extra ``mlflow``; ``MLFLOW_TRACKING_URI`` says where."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Config:
    """A complete run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    progressive: ProgressiveConfig = ProgressiveConfig()
    train: TrainConfig = TrainConfig()
    distributed: DistributedConfig = DistributedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    ema: EmaConfig = EmaConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    preprocessing: Preprocessing | None = None
    """How images are normalised and evaluated, but for what `EvaluateConfig` says. Left out: as the weights
    say, or as the network was released."""

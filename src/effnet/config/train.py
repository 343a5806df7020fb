"""Sections about training: how long and with what arithmetic, over which processes, by which rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG, Output, Rate
from effnet.config.ranges import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Seed


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
    threads: NonNegativeInt = 0
    """With which a processor computes. 0: as many as ``effnet tune`` found, else torch's own number."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """``auto``: what ``effnet tune`` found for this network and device; else bf16 autocast on a GPU that has
    it, else fp32. ``fp16`` scales the loss, and leaves out steps whose gradients are not finite."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """``auto``: what ``effnet tune`` found, else ``channels_last``."""
    compile: Literal["auto", "off", "graphs", "default", "reduce-overhead", "max-autotune-no-cudagraphs"] = (
        "auto"
    )
    """``graphs``, on a GPU: no compiler; a step's forward and backward pass is recorded once for each image
    size, as a CUDA graph, and replayed, with the same results bit for bit. Else the mode of
    ``torch.compile``, which compiles the network once for each image size. ``auto``: what ``effnet tune``
    found, else ``off``."""
    kernels: Literal["auto", "plain", "triton-norm", "triton", "numba"] = "auto"
    """``auto``: what ``effnet tune`` found, else ``numba`` on a processor where Numba is installed and steps
    are in single precision or bf16 and not compiled, else ``plain``. ``numba``, on a processor: depthwise
    convolutions that torch computes slowly, TensorFlow's RMSprop, and in single precision batch norm and what
    follows it by kernels of our own, which keep less for the backward pass; they are compiled once, for some
    seconds; and in single precision convolutions of one pixel as products of matrices. ``triton-norm``, on a
    GPU: batch norm and what follows it; ``triton``: depthwise convolutions as well. Equal to ``plain`` up to
    rounding. Where Triton cannot run, as on a processor, their twins in PyTorch do."""


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
    """Of a step of ``train.batch_size`` images; one of twice as many decays twice. 0 switches it off."""
    warmup: bool = True
    """Use min(decay, (1 + step) / (10 + step)), as TensorFlow does."""

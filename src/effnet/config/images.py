"""Sections about images: which network sees them, where they are, and what is done to them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.preprocessing import Interpolation
from effnet.arch.spec import SPEC_CONFIG, Activation, Padding
from effnet.config.ranges import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Seed

WorkerChoice: TypeAlias = Literal["auto", "threads", "processes"]
"""What prepares images; ``auto`` leaves it open."""


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
    grow_from: str = ""
    """Of which smaller network ``weights`` are: its name, the path of its spec, or ``auto`` where they say so
    themselves. They are grown into ``network``, which begins as the same function (Net2Net, 1511.05641)."""
    weights_class_names: str = ""
    """A file with the names of the weights' classes, one a line in the order of the logits, for weights that
    bring none. Classes whose names the data shares keep their rows of the classifier."""
    gradient_checkpointing: Literal[False, True, "selective"] = False
    """Recompute blocks in the backward pass to save memory. ``selective``: only those whose maps have at
    least a 16th of the image's side, which saves most of what ``true`` saves in less time: by 19 % longer
    steps instead of 39 % (V2-S at 128 px), by 29 % instead of 34 % (V1-B0 at 224 px; docs/log.md)."""


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
    minival_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each class of the training images to validate on instead of the validation images, which then
    stay unseen: for choices that are made by the result, as those of a search. 0: none."""
    max_train_images: NonNegativeInt = 0
    """Train on about that many images, of each class its share; 0: on all. Validation keeps its own."""
    split_seed: Seed = 0
    """Of the draws of ``val_fraction``, ``minival_fraction`` and ``max_train_images``."""
    workers: NonNegativeInt = 0
    """Threads or processes that prepare images; 0: one for each processor."""
    worker_kind: WorkerChoice = "auto"
    """What ``workers`` are where images are trained on, or 5,000 or more evaluated; batches are the same, bit
    for bit. Threads share one interpreter's lock and keep no large machine busy; processes need Linux, and
    images in local files, tars or a prepared store, or in memory. ``auto``: processes, if a GPU trains and
    there are four or more which can read the images; else threads."""
    resident: bool = False
    """Keep all training images on the device as pixels, and cut, mirror and RandAugment them there: for sets
    that are small and whose images have one size, such as CIFAR. What is drawn does not depend on it."""
    resident_draws: Literal["image", "batch"] = "image"
    """Of ``resident``: draw crops and augmentation for each image by itself, as from files; or for all images
    of a step together, which is many times faster and draws other numbers of the same distributions. A GPU
    that does a step in some milliseconds would wait for ``image``."""
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
    jpeg_index_gigabytes: NonNegative = 4.0
    """Memory of a process for remembering where the parts of JPEG files are, so that crops are decoded
    without what is around them: some 7 % of the files' size, 10 for all of ImageNet; none without Numba
    (extra ``cpu``). Files beyond it are decoded as a whole, to the same pixels."""
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

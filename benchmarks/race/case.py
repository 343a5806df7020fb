"""What is raced: data sets with their settings, and the ways to choose the size of the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from effnet.api import configure
from effnet.config import Config
from effnet.errors import UserError

Device = Literal["cpu", "cuda"]
Engine = Literal["effnet", "composer", "timm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """A data set, and all that is the same for those who race on it."""

    name: str
    title: str
    folder: str
    """Of the data, below the one that is given."""
    recipe: str
    changes: tuple[str, ...]
    """Of the recipe, for all; sizes and regularization are those of the fixed size."""
    full: int
    """Side of the largest images in pixels, by which all are judged."""
    paper: tuple[str, ...]
    """Changes of the paper's schedule with the same last values."""
    better: tuple[str, ...]
    """Changes of the schedule that was found to be better than it, on other seeds."""
    timm_sizes: tuple[int, ...]
    timm_epochs: int
    """In how many steps timm's schedule goes from the first size to the last."""
    judged_images: int
    """Validation images to look at on the way."""
    last_images: int = 0
    """Validation images by which the end is judged, evenly taken; 0: all."""
    short_sides: tuple[int, ...] = ()
    """Of copies that are made beforehand, and that all read; none: the data as it is."""
    is_pretrained: bool = False
    """Whether all start from weights, which the command names."""
    lower: tuple[str, ...] = ()
    """Changes of a schedule that ends at still smaller images; none: there is no such arm."""
    device: Device = "cpu"
    """On which it is of a sensible size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A way to race."""

    name: str
    label: str
    engine: Engine = "effnet"
    schedule: Literal["fixed", "paper", "better", "lower"] = "fixed"
    length: float = 1.0
    """In units of the epochs of the race."""
    changes: tuple[str, ...] = ()
    """Of the schedule."""
    is_usual: bool = True
    """Whether it races where nobody names the arms; on a GPU only effnet's do."""

    def is_in(self, race: Race) -> bool:
        """Whether a race has its schedule."""
        return self.schedule != "lower" or bool(race.lower)


_NOT_ADAPTIVE = "progressive.coupled=[]"
_RANDOM = ("progressive.mode=random", "progressive.redraw_epochs=0.5")
"""Redrawn about as often in a run as in the paper's, every 8 of 350 epochs."""

ARMS = (
    Arm(name="fixed", label="effnet, fixed size"),
    Arm(name="half", label="effnet, fixed size, half the epochs", length=0.5),
    Arm(name="paper", label="effnet, progressive + adaptive, the paper's", schedule="paper"),
    Arm(name="better", label="effnet, progressive + adaptive, better", schedule="better"),
    Arm(name="lower", label="effnet, progressive + adaptive, ends lower", schedule="lower"),
    Arm(name="composer", label="Composer's resizing, in effnet", engine="composer"),
    Arm(name="timm", label="timm, progressive", engine="timm"),
    Arm(
        name="resize",
        label="effnet, progressive, not adaptive",
        schedule="paper",
        changes=(_NOT_ADAPTIVE,),
        is_usual=False,
    ),
    Arm(
        name="random",
        label="effnet, random sizes, not adaptive",
        schedule="paper",
        changes=(*_RANDOM, _NOT_ADAPTIVE),
        is_usual=False,
    ),
    Arm(
        name="random-adaptive",
        label="effnet, random sizes, adaptive",
        schedule="paper",
        changes=_RANDOM,
        is_usual=False,
    ),
)
"""The unusual ones, with ``fixed`` and ``paper``, are the rows of table 13 of 2104.00298."""


def config_of(
    race: Race,
    arm: Arm,
    *,
    seed: int,
    data: Path,
    extra: list[str],
    weights: Path | None = None,
    device: Device = "cpu",
) -> Config:
    """Return the configuration of a run.

    Args:
        race: Its data set.
        arm: Its schedule; timm and Composer get that of the fixed size.
        seed: Of all that is drawn.
        data: Where the images are.
        extra: Changes of all runs.
        weights: What a pretrained race starts from.
        device: Where to train.

    Raises:
        UserError: The race needs weights.
    """
    if race.is_pretrained and weights is None:
        raise UserError(f"the race {race.name} starts from trained weights; name a file by --weights")
    schedule = {"fixed": (), "paper": race.paper, "better": race.better, "lower": race.lower}[arm.schedule]
    config = configure(
        data,
        recipe=race.recipe,
        model=_value(race.changes, "model.network"),
        weights=weights if race.is_pretrained else None,
        changes=[
            f"train.device={device}",
            "data.workers=1",
            "tracking.tensorboard=false",
            *race.changes,
            *schedule,
            *arm.changes,
            f"train.seed={seed}",
            *extra,
        ],
    )
    if arm.length == 1.0:
        return config
    return configure_length(config, arm.length)


def configure_length(config: Config, length: float) -> Config:
    """Return a configuration of so many times as many epochs; how often it is looked at stays."""
    train = replace(config.train, epochs=config.train.epochs * length)
    rate = replace(config.learning_rate, warmup_epochs=config.learning_rate.warmup_epochs * length)
    return replace(config, train=train, learning_rate=rate)


def _value(changes: tuple[str, ...], key: str) -> str | None:
    return next((change.partition("=")[2] for change in changes if change.startswith(f"{key}=")), None)


def told(race: Race) -> dict[str, Any]:
    """Return the settings as the results keep them."""
    return {
        "title": race.title,
        "recipe": race.recipe,
        "changes": list(race.changes),
        "paper": list(race.paper),
        "better": list(race.better),
        "timm_sizes": list(race.timm_sizes),
        "timm_epochs": race.timm_epochs,
        "full": race.full,
    } | ({"lower": list(race.lower)} if race.lower else {})

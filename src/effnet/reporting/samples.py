"""What the network saw in every stage: some photos, and the run's own views of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from effnet.data.decode import decode_image
from effnet.data.images import DataSplit, LabelledImages
from effnet.errors import UserError
from effnet.reporting.facts import RunFacts
from effnet.reporting.missing import Missing
from effnet.reporting.pictures import LARGEST_PX, data_uri
from effnet.training.views import StageViews, first_readable, settings_of, shares_of, views_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture and what it counts for."""

    image: str
    """A data URI."""
    caption: str
    """Its class, or the classes that a mixed view counts for with their shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSamples:
    """Some photos as one stage trains on them, or as they are."""

    title: str
    settings: tuple[str, ...]
    """What is done to the images, one line each."""
    width: float
    """Of a view on the page: 1 in the stage with the largest images."""
    samples: tuple[Sample, ...]


def stage_samples(facts: RunFacts, data: DataSplit, *, photos: int) -> tuple[StageSamples, ...]:
    """Return some photos of a run, and then how each of its stages sees them; of many stages, eight of them.

    Args:
        facts: Of the run.
        data: Its images.
        photos: How many; fewer where there are not so many.

    Raises:
        UserError: Its stages are not known, or none of the training images can be read.
    """
    if isinstance(facts.schedule, Missing):
        raise UserError(facts.schedule.reason)
    chosen = first_readable(data.train, facts.config.train.seed, photos)
    names = [chosen.class_names[label] for label in chosen.labels]
    stages = list(views_of(facts.config, facts.schedule, chosen))
    largest = max(stage.settings.image_size for stage in stages)
    as_they_are = StageSamples(
        title="Photos",
        settings=(f"{len(chosen)} of {len(data.train):,} to train on",),
        width=1.0,
        samples=tuple(Sample(image=_photo(chosen, index), caption=name) for index, name in enumerate(names)),
    )
    return (
        as_they_are,
        *(
            _stage(_title(number, len(stages), len(facts.schedule.stages)), stage, largest, names, facts)
            for number, stage in enumerate(stages, 1)
        ),
    )


def _photo(images: LabelledImages, index: int) -> str:
    pixels = decode_image(images.read(index))
    return data_uri(_enlarged(pixels))


def _title(number: int, shown: int, stages: int) -> str:
    return f"Stage {number} of {stages}" if shown == stages else f"One of {stages} stages"


def _stage(title: str, stage: StageViews, largest: int, names: list[str], facts: RunFacts) -> StageSamples:
    return StageSamples(
        title=title,
        settings=tuple(settings_of(stage.settings, facts.config.augment).split("\n")),
        width=stage.settings.image_size / largest,
        samples=tuple(
            Sample(image=data_uri(_enlarged(pixels)), caption=shares_of(targets, names))
            for pixels, targets in zip(stage.images, stage.targets, strict=True)
        ),
    )


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small picture, so that a browser does not blur them."""
    factor = max(LARGEST_PX // 2 // max(pixels.shape[:2]), 1)
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)

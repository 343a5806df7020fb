"""What the steps of any schedule take on a device, as a sum of three parts."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG
from effnet.config.ranges import NonNegative
from effnet.schedule.progressive import StageSchedule, StageSettings

MEGA = 1e6


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class StepCost:
    """The seconds of a training step, as a sum of what it has and what its images have."""

    a_step: NonNegative
    """Whatever its images: updating the weights and the average, starting operators."""
    an_image: NonNegative
    """Whatever its size, preparing it included where that takes the same processors."""
    a_megapixel: NonNegative
    """Of the images of a step."""

    def step(self, settings: StageSettings) -> float:
        """Return the seconds of a step of a stage."""
        megapixels = settings.image_size**2 / MEGA
        return self.a_step + settings.batch_size * (self.an_image + megapixels * self.a_megapixel)

    def seconds(self, schedule: StageSchedule) -> float:
        """Return the seconds of all steps of a run."""
        return sum(stage.steps * self.step(stage) for stage in schedule.stages)

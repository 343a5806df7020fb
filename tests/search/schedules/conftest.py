"""A recipe of 8 to 16 px, the space of its schedules, and a cost of its steps."""

from __future__ import annotations

import pytest

from effnet.arch.io import spec_to_json
from effnet.config import ModelConfig
from effnet.recipes import resolve_config
from effnet.search.schedules.cost import StepCost
from effnet.search.schedules.space import space_for

from ..studies import BACKBONE


@pytest.fixture(scope="session")
def recipe():
    return resolve_config(
        "search",
        ["train.epochs=10", "train.batch_size=10", "progressive.image_size=[8,16]", "progressive.stages=4",
         "learning_rate.base=0.01", "learning_rate.base_batch_size=40", "learning_rate.warmup_epochs=1",
         "data.workers=1", "data.max_train_images=60", "evaluate.image_size=16", "ema.decay=0.5"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def space(recipe):
    return space_for(recipe, train_size=32, train_images=400, seeds=3)


@pytest.fixture(scope="session")
def cost():
    """Only pixels take time."""
    return StepCost(a_step=0.0, an_image=0.0, a_megapixel=1.0)


@pytest.fixture(scope="session")
def digits_network(tmp_path_factory):
    """The smallest network, as a recipe has it."""
    path = tmp_path_factory.mktemp("network") / "tiny.json"
    path.write_text(spec_to_json(BACKBONE))
    return ModelConfig(network=str(path))

"""Images held out of those to train on, to compare candidates by; what validates a result stays unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from effnet.config import DataConfig
from effnet.data.images import DataSplit
from effnet.data.sources import open_configured
from effnet.data.splits import stratified_split, stratified_subset
from effnet.errors import UserError

_SHARE = 0.2
_MOST = 10_000


def open_with_minival(config: DataConfig, *, images: int = 0) -> DataSplit:
    """Open data to search on: its training images without a minival, and the minival as ``val``.

    The data's own validation split, or what is drawn where it has none, is in neither.

    Args:
        config: As of a training run. ``max_train_images`` limits what is left to train on.
        images: Of the minival, about; of each class its share. 0: a fifth, at most 10,000.

    Raises:
        UserError: See `open_configured`; or more than half of the images are asked for.
    """
    data = open_configured(replace(config, max_train_images=0))
    available = len(data.train)
    wanted = images or min(round(_SHARE * available), _MOST)
    if wanted > available // 2:
        raise UserError(
            f"a minival of {wanted:,} images is more than half of the {available:,} to train on; "
            f"{available // 2:,} are possible"
        )
    held_out = stratified_split(data.train, val_fraction=wanted / available, seed=config.split_seed)
    train = data.train.subset(np.flatnonzero(~held_out))
    if config.max_train_images:
        train = stratified_subset(train, config.max_train_images, seed=config.split_seed)
    return DataSplit(train=train, val=data.train.subset(np.flatnonzero(held_out)), is_drawn=True)

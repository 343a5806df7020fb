"""Images held out of those to train on."""

from __future__ import annotations

import pytest

from effnet.config import DataConfig
from effnet.data.sources import open_configured
from effnet.errors import UserError
from effnet.search.minival import open_with_minival


def test_a_minival_is_taken_from_the_training_images_alone():
    config = DataConfig(source="digits")
    usual, held = open_configured(config), open_with_minival(config, images=200)
    train, val, minival = (set(images.names) for images in (held.train, usual.val, held.val))
    assert train | minival == set(usual.train.names)
    assert not train & minival
    assert not val & (train | minival)
    assert len(minival) == pytest.approx(200, abs=10)
    assert (held.val.class_counts() > 10).all()


def test_without_a_number_it_is_a_fifth():
    data = open_with_minival(DataConfig(source="digits"))
    assert len(data.val) / (len(data.train) + len(data.val)) == pytest.approx(0.2, abs=0.01)


def test_fewer_images_to_train_on_do_not_change_it():
    everything = open_with_minival(DataConfig(source="digits"), images=200)
    few = open_with_minival(DataConfig(source="digits", max_train_images=100), images=200)
    assert list(few.val.names) == list(everything.val.names)
    assert set(few.train.names) < set(everything.train.names)
    assert len(few.train) == pytest.approx(100, abs=10)


def test_more_than_half_is_refused():
    with pytest.raises(UserError) as caught:
        open_with_minival(DataConfig(source="digits"), images=800)
    assert str(caught.value) == (
        "a minival of 800 images is more than half of the 1,438 to train on; 719 are possible"
    )

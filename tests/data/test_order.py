import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.order import BLOCKS_AT_A_TIME, sample_order, sample_random


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    blocks=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    epoch=st.integers(0, 3),
    in_blocks=st.booleans(),
)
def test_each_image_comes_once_an_epoch(seed, blocks, epoch, in_blocks):
    images = sum(blocks)
    order = sample_order(
        seed, epoch * images, (epoch + 1) * images, images=images, blocks=tuple(blocks) if in_blocks else ()
    )
    assert sorted(order.tolist()) == list(range(images))


@given(start=st.integers(0, 90), length=st.integers(0, 60))
def test_any_part_is_that_of_the_whole(start, length):
    for blocks in ((), (4, 9, 10, 6)):
        whole = sample_order(7, 0, 150, images=29, blocks=blocks)
        part = sample_order(7, start, start + length, images=29, blocks=blocks)
        assert part.tolist() == whole[start : start + length].tolist()


@given(
    start=st.integers(0, 90), length=st.integers(0, 60), repeats=st.integers(1, 5), in_blocks=st.booleans()
)
def test_repeated_samples_are_those_without_repeats_several_times(start, length, repeats, in_blocks):
    options = {"images": 29, "blocks": (4, 9, 10, 6) if in_blocks else ()}
    once = sample_order(7, 0, 150, **options).repeat(repeats)
    part = sample_order(7, start, start + length, repeats=repeats, **options)
    assert part.tolist() == once[start : start + length].tolist()


@pytest.mark.parametrize(("images", "repeats"), [(12, 3), (10, 3), (5, 7)])
def test_each_image_comes_as_often_as_it_is_repeated_in_as_many_epochs(images, repeats):
    order = sample_order(1, 0, images * repeats, images=images, repeats=repeats)
    assert np.bincount(order, minlength=images).tolist() == [repeats] * images
    epoch = order[:images]
    assert len(set(epoch.tolist())) == -(-images // repeats)


def test_only_some_blocks_are_needed_at_a_time():
    blocks = (10,) * 40
    order = sample_order(0, 0, 400, images=400, blocks=blocks)
    window = 10 * BLOCKS_AT_A_TIME
    touched = [set((order[start : start + window] // 10).tolist()) for start in range(0, 400, window)]
    assert all(len(part) == BLOCKS_AT_A_TIME for part in touched)
    assert len(set.union(*touched)) == 40
    # Inside a window the images are mixed, and the windows are not in the order of the files.
    assert len(set((order[:20] // 10).tolist())) > 4
    assert touched[0] != set(range(BLOCKS_AT_A_TIME))


def test_epochs_and_seeds_differ():
    first = sample_order(0, 0, 100, images=50)
    assert first[:50].tolist() != first[50:].tolist()
    assert sample_order(1, 0, 50, images=50).tolist() != first[:50].tolist()


def test_each_sample_has_random_numbers_of_its_own():
    draws = {tuple(sample_random(seed, sample).random(2)) for seed in (0, 1) for sample in range(50)}
    assert len(draws) == 100
    assert np.array_equal(sample_random(3, 4).random(5), sample_random(3, 4).random(5))


def test_random_numbers_are_philox_of_seed_and_sample():
    key = np.array([2**63 - 1, 77], np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 1]))
    assert np.array_equal(sample_random(2**63 - 1, 77).random(9), expected.random(9))

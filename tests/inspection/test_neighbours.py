import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from effnet.inspection import neighbours
from effnet.inspection.fingerprint import mirrored
from effnet.inspection.neighbours import (
    MOST_BITS,
    MOST_LOW_BITS,
    MOST_MIRRORED_BITS,
    find_neighbours,
)


def words(flags):
    """Pack rows of 256 flags as hashes are packed."""
    return np.packbits(np.atleast_2d(flags), axis=1).view(np.uint64)


def random_hashes(rng, count):
    flags = rng.random((count, 256)) < 0.5
    flags[:, 0] = False
    return words(flags)


def changed(rng, hashes, low, rest):
    """Flip so many bits of the first word, and of the others."""
    flags = np.zeros(256, bool)
    flags[rng.choice(np.arange(1, 64), low, replace=False)] = True
    flags[rng.choice(np.arange(64, 256), rest, replace=False)] = True
    return hashes ^ words(flags)


def exhaustive(hashes):
    """All pairs by comparing each with each; the value says whether only the mirror image is near."""
    pairs = {}
    for is_mirrored, others, most in ((1, mirrored(hashes), MOST_MIRRORED_BITS), (0, hashes, MOST_BITS)):
        differing = np.bitwise_count(hashes[:, None] ^ others[None])
        near = (differing[..., 0] <= MOST_LOW_BITS) & (differing.sum(-1, dtype=int) <= most)
        pairs |= dict.fromkeys(zip(*np.nonzero(np.triu(near, 1)), strict=True), is_mirrored)
    return pairs


def parts(pairs, count):
    """The sets that hang together."""
    part = list(range(count))
    for first, second in pairs:
        old, new = part[second], part[first]
        part = [new if each == old else each for each in part]
    return part


COPY = st.tuples(st.integers(0, 14), st.integers(0, 60), st.booleans())


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), copies=st.lists(COPY, max_size=25))
@example(seed=0, copies=[(MOST_LOW_BITS, MOST_BITS - MOST_LOW_BITS, False), (0, 0, True)])
@example(seed=1, copies=[(MOST_LOW_BITS + 1, 0, False), (MOST_LOW_BITS, 50, True), (0, MOST_BITS + 1, False)])
@example(seed=3, copies=[(1, MOST_MIRRORED_BITS - 1, True), (1, MOST_MIRRORED_BITS, True)])
@example(seed=2, copies=[(MOST_LOW_BITS, 0, is_mirrored) for is_mirrored in (False, True)] * 12)
def test_the_pairs_are_those_of_an_exhaustive_search(seed, copies):
    rng = np.random.default_rng(seed)
    originals = random_hashes(rng, 30)
    rows = [originals]
    for number, (low, rest, is_mirrored) in enumerate(copies):
        copy = changed(rng, originals[number : number + 1], low, rest)
        rows.append(mirrored(copy) if is_mirrored else copy)
    hashes = rng.permutation(np.concatenate(rows))
    found = find_neighbours(hashes, workers=2)
    # Originals are far from each other, so that each copy is in a pair of its own and none can be left out.
    assert {(first, second): flag for first, second, flag in found.tolist()} == exhaustive(hashes)


def test_every_way_to_spread_the_bits_over_the_bands_is_found():
    rng = np.random.default_rng(0)
    for spread in [(2, 3, 3, 3), (3, 3, 3, 2), (3, 2, 3, 3), (11, 0, 0, 0), (0, 0, 0, 11), (0, 6, 5, 0)]:
        flags = np.zeros(256, bool)
        for band, count in enumerate(spread):
            flags[rng.choice(np.arange(16 * band + (band == 0), 16 * band + 16), count, replace=False)] = True
        original = random_hashes(rng, 1)
        found = find_neighbours(np.concatenate([original, original ^ words(flags)]))
        assert found.tolist() == [[0, 1, 0]]


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 60))
def test_a_crowd_is_held_together_by_as_few_pairs_as_can_be(seed, count):
    rng = np.random.default_rng(seed)
    center = random_hashes(rng, 1)
    crowd = np.concatenate(
        [changed(rng, center, int(rng.integers(8)), int(rng.integers(30))) for _ in range(count)]
    )
    hashes = rng.permutation(np.concatenate([crowd, random_hashes(rng, 10)]))
    found = find_neighbours(hashes)
    wanted = exhaustive(hashes)
    assert parts(found[:, :2].tolist(), len(hashes)) == parts(wanted, len(hashes))
    assert len(found) == len(hashes) - len(set(parts(wanted, len(hashes))))
    assert all(wanted[first, second] == flag for first, second, flag in found.tolist())


@pytest.mark.parametrize(("name", "value"), [("_ROWS_AT_A_TIME", 3), ("_COMPARED_AT_A_TIME", 2)])
def test_how_much_is_compared_at_a_time_changes_nothing(monkeypatch, name, value):
    rng = np.random.default_rng(0)
    originals = random_hashes(rng, 40)
    copies = [changed(rng, originals[index : index + 1], 11, 20) for index in range(40)]
    hashes = rng.permutation(np.concatenate([originals, *copies, mirrored(originals[:9])]))
    expected = find_neighbours(hashes)
    monkeypatch.setattr(neighbours, name, value)
    assert np.array_equal(find_neighbours(hashes), expected)
    assert len(expected) == 40 + 9


def test_pairs_that_do_not_fit_into_memory_are_thinned_out(monkeypatch):
    rng = np.random.default_rng(0)
    center = random_hashes(rng, 1)
    hashes = np.concatenate([center, *(changed(rng, center, 3, 9) for _ in range(50))])
    monkeypatch.setattr(neighbours, "_MOST_PAIRS_HELD", 10)
    monkeypatch.setattr(neighbours, "_COMPARED_AT_A_TIME", 7)
    assert len(set(parts(find_neighbours(hashes)[:, :2].tolist(), 51))) == 1


def test_a_pair_that_is_near_both_ways_is_plain():
    rng = np.random.default_rng(0)
    flags = rng.random((16, 16)) < 0.5
    flags[:, 1::2] = False
    flags[0, 0] = False
    quarters = np.stack([flags[:8, :8], flags[:8, 8:], flags[8:, :8], flags[8:, 8:]]).reshape(-1)
    hashes = words(np.stack([quarters, quarters]))
    hashes[1] ^= mirrored(np.zeros((1, 4), np.uint64))[0] & words(np.arange(256) < 20)[0]
    assert find_neighbours(hashes).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_trouble(count):
    assert find_neighbours(random_hashes(np.random.default_rng(0), count)).shape == (0, 3)

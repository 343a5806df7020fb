import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from effnet.data.labels import LabelSets, without_repeats

ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=12)


def make(rows):
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return without_repeats(starts, np.array([label for row in rows for label in row], np.int32))


@given(ROWS)
def test_labels_come_back_without_repeats_in_their_order(rows):
    sets = make(rows)
    assert len(sets) == len(rows)
    assert [sets.of(index).tolist() for index in range(len(rows))] == [
        list(dict.fromkeys(row)) for row in rows
    ]
    assert sets.first.tolist() == [row[0] for row in rows]


@given(ROWS, st.data())
def test_subset_and_padding_follow_the_indices(rows, data):
    sets = make(rows)
    indices = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)), np.int64)
    subset, padded = sets.subset(indices), sets.padded(indices)
    assert len(subset) == len(padded) == len(indices)
    for place, index in enumerate(indices.tolist()):
        assert subset.of(place).tolist() == sets.of(index).tolist()
        assert padded[place][padded[place] >= 0].tolist() == sets.of(index).tolist()
    assert padded.shape[1] == max([1, *(len(sets.of(index)) for index in indices.tolist())])


def test_labels_get_other_numbers():
    sets = make([[0, 2], [1]]).renumbered(np.array([7, 5, 6]))
    assert [sets.of(index).tolist() for index in range(2)] == [[7, 6], [5]]


def test_labels_of_21k_stay_small():
    images = 100_000
    sets = LabelSets(starts=np.arange(images + 1), values=np.zeros(images, np.int32))
    assert (sets.starts.nbytes + sets.values.nbytes) / images < 13

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effnet.engines.spread import Spread, pieces


@pytest.mark.parametrize(
    ("count", "threads", "sizes", "expected"),
    [
        (16, 2, (1, 4), [4, 4, 4, 4]),
        (5, 2, (1, 4), [1, 1, 1, 1, 1]),
        (5, 2, (1, 2, 3, 4), [3, 1, 1]),
        (12, 2, (1, 4), [4, 4, 1, 1, 1, 1]),
        (9, 1, (1, 4), [4, 4, 1]),
        (3, 8, (1, 2, 3, 4), [1, 1, 1]),
    ],
)
def test_pieces_are_large_where_all_threads_have_one(count, threads, sizes, expected):
    assert pieces(count, threads, sizes) == expected


@given(st.integers(0, 100), st.integers(1, 16), st.sets(st.integers(2, 8)))
def test_pieces_are_all_images_in_allowed_sizes(count, threads, sizes):
    allowed = (1, *sorted(sizes))
    cut = pieces(count, threads, allowed)
    assert sum(cut) == count
    assert set(cut) <= set(allowed)
    work = [sum(cut[place::threads]) for place in range(threads)]
    assert max(work) - min(work) <= max(cut, default=0)


@pytest.fixture
def spread():
    seen = []

    def piece(pixels):
        seen.append((len(pixels), threading.current_thread().name.partition("_")[0]))
        return pixels.sum((2, 3))

    def one(pixels):
        seen.append(("one", len(pixels)))
        return pixels.sum((2, 3))

    made = Spread(one, piece, sizes=(1, 4), threads=2)
    return made, seen


def test_answers_come_in_the_order_of_the_images(spread):
    network, seen = spread
    pixels = torch.randn(11, 3, 2, 2)
    assert torch.equal(network(pixels), pixels.sum((2, 3)))
    assert sorted(seen) == [(1, "effnet-engine")] * 3 + [(4, "effnet-engine")] * 2
    seen.clear()
    assert torch.equal(network.alone(pixels), pixels.sum((2, 3)))
    assert seen == [(4, "MainThread")] * 2 + [(1, "MainThread")] * 3


def test_one_thread_needs_no_other():
    names = []

    def piece(pixels):
        names.append(threading.current_thread().name)
        return pixels.sum((2, 3))

    Spread(piece, piece, sizes=(1, 4), threads=1)(torch.zeros(5, 3, 2, 2))
    assert names == ["MainThread"] * 2


def test_one_image_is_for_all_threads(spread):
    network, seen = spread
    assert network(torch.zeros(1, 3, 2, 2)).shape == (1, 3)
    assert seen == [("one", 1)]


def test_what_fails_in_a_thread_fails_here():
    def broken(pixels):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        Spread(broken, broken, sizes=(1,), threads=2)(torch.zeros(3, 3, 2, 2))

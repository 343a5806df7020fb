from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from effnet.training.optimizers import RMSpropTF
from effnet.training.portions import in_portions


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 30))
def test_every_element_comes_once_and_beside_its_partners(sizes, elements):
    first = list(torch.arange(sum(sizes)).split(sizes))
    second = [tensor + 1000 for tensor in first]
    seen = []
    for ours, theirs in in_portions(first, second, elements=elements):
        assert [len(tensor) for tensor in ours] == [len(tensor) for tensor in theirs]
        assert sum(len(tensor) for tensor in ours[:-1]) < elements
        seen += torch.cat(ours).tolist()
        assert torch.equal(torch.cat(ours) + 1000, torch.cat(theirs))
    assert seen == list(range(sum(sizes)))


def test_pieces_are_memory_and_not_copies():
    tensor = torch.zeros(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)[1:]
    for (pieces,) in in_portions([tensor], elements=7):
        torch._foreach_add_(pieces, 1)
    assert bool((tensor == 1).all())


def test_tensors_that_lie_differently_or_have_gaps_stay_whole():
    lying, other = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    gaps = torch.zeros(2, 3, 4, 8)[..., ::2]
    for lists in (([lying], [other]), ([gaps], [gaps])):
        ((first, second),) = in_portions(*lists, elements=5)
        assert (first[0].shape, second[0].shape) == ((2, 3, 4, 4), (2, 3, 4, 4))


@pytest.mark.parametrize("mode", ["l2", "decoupled"])
def test_portions_change_no_bit_of_rmsprop(mode, monkeypatch):
    def trained(elements):
        portions = partial(in_portions, elements=elements)
        monkeypatch.setattr("effnet.training.optimizers.in_portions", portions)
        generator = torch.Generator().manual_seed(0)
        shapes = ((8, 5, 3, 3), (5,), (33, 17), (1,))
        params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        params[0].data = params[0].data.to(memory_format=torch.channels_last)
        optimizer = RMSpropTF(params, lr=0.1, weight_decay=0.1, weight_decay_mode=mode)
        for _ in range(3):
            for param in params:
                param.grad = torch.empty_like(param).copy_(torch.randn(param.shape, generator=generator))
            optimizer.step()
        return params

    pairs = zip(trained(1 << 20), trained(100), strict=True)
    assert all(torch.equal(whole, parts) for whole, parts in pairs)

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from effnet.explanation.game import _ranks, blur, play, random_maps


def _curves(model, image, label, heat, steps):
    """Both games with one image, by loops; no two pixels are equally hot."""
    side = image.shape[-1]
    order = sorted(((i, j) for i in range(side) for j in range(side)), key=lambda place: -float(heat[place]))
    taken, put = [], []
    for step in range(steps + 1):
        deleted, inserted = image.clone(), blur(image[None])[0]
        for i, j in order[: -(-step * len(order) // steps)]:
            deleted[:, i, j] = 0.0
            inserted[:, i, j] = image[:, i, j]
        for curve, changed in ((taken, deleted), (put, inserted)):
            curve.append(float(model(changed[None]).softmax(1)[0, label]))
    return np.trapezoid(taken) / steps, np.trapezoid(put) / steps


def test_both_games_are_as_rise_plays_them(spotter):
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    heat = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(1))
    found = play(spotter, image, torch.tensor([1, 2]), heat, steps=4)
    with torch.no_grad():
        for row, label in enumerate((1, 2)):
            deletion, insertion = _curves(spotter, image[row], label, heat[row], 4)
            assert float(found.deletion[row]) == pytest.approx(deletion, abs=1e-4)
            assert float(found.insertion[row]) == pytest.approx(insertion, abs=1e-4)


def test_a_map_that_knows_the_evidence_wins(spotter, spotted):
    known = torch.zeros(1, 32, 32)
    known[:, 4:12, 18:26] = 1.0
    label = torch.tensor([1])
    best = play(spotter, spotted, label, known)
    worst = play(spotter, spotted, label, -known)
    for seed in range(5):
        random = play(spotter, spotted, label, random_maps(1, 8, 32, seed=seed))
        assert best.deletion < random.deletion < worst.deletion
        assert best.insertion > random.insertion > worst.insertion


def test_the_network_stays_as_it_was(model, pixels, classes):
    play(model, pixels, classes, torch.rand(3, 33, 33), steps=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_probabilities_may_be_sigmoids(spotter, spotted):
    arguments = (spotter, spotted, torch.tensor([1]), torch.rand(1, 32, 32))
    one, other = (play(*arguments, output=output, steps=2).deletion for output in ("softmax", "sigmoid"))
    assert one != other


def test_equally_hot_pixels_follow_each_other_in_no_direction():
    ranks = _ranks(torch.zeros(1, 32, 32))[0]
    assert sorted(ranks.flatten().tolist()) == [index / 1024 for index in range(1024)]
    for half in (ranks[:16], ranks[:, :16], ranks[16:], ranks[:, 16:]):
        assert abs(float(half.mean()) - 0.5) < 0.05


@given(st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9))
def test_hotter_pixels_come_first(values):
    heat = torch.tensor(values).view(1, 3, 3)
    ranks = _ranks(heat).flatten()
    assert sorted(ranks.tolist()) == pytest.approx([index / 9 for index in range(9)])
    order = heat.flatten()[ranks.argsort()]
    assert (order[:-1] >= order[1:]).all()


def test_random_maps_are_smooth_and_drawn_from_their_seed():
    maps = random_maps(3, 4, 32, seed=7)
    assert maps.shape == (3, 32, 32)
    assert torch.equal(maps, random_maps(3, 4, 32, seed=7))
    assert not torch.equal(maps, random_maps(3, 4, 32, seed=8))
    assert (maps[:, :, 1:] - maps[:, :, :-1]).abs().max() < 0.2
    assert maps.std() > 0.15


def test_blur_keeps_what_is_plain_and_removes_what_is_fine():
    plain = torch.full((1, 3, 40, 40), 0.7)
    torch.testing.assert_close(blur(plain), plain)
    checkered = (torch.arange(40)[:, None] + torch.arange(40)).remainder(2).float().expand(1, 3, -1, -1)
    assert (blur(checkered) - 0.5).abs().max() < 0.01
    assert blur(torch.rand(1, 3, 2, 2)).shape == (1, 3, 2, 2)

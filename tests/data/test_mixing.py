import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from effnet.config import AugmentConfig
from effnet.data.mixing import mix_batch

AREA = AugmentConfig()
BATCH_MEAN = AugmentConfig(cutmix_label="batch_mean")


def _batch(count, side=8, classes=4):
    images = torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, side, side)
    targets = torch.nn.functional.one_hot(torch.arange(count) % classes, classes).float()
    return images.contiguous(), targets


def _mix(stage, count=8, *, mixup=0.0, cutmix=0.0, config=AREA, seed=0, side=8, classes=None):
    images, targets = _batch(count, side, classes or count)
    chosen = stage(mixup_alpha=mixup, cutmix_alpha=cutmix)
    return mix_batch(images, targets, chosen, config, seed=seed)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    count=st.integers(1, 9),
    alphas=st.tuples(st.sampled_from([0.0, 0.067, 1.0]), st.sampled_from([0.0, 0.2, 1.0])),
    label=st.sampled_from(["area", "batch_mean"]),
    seed=st.integers(0, 2**63 - 1),
)
def test_mixing_preserves_label_mass_and_pixel_range(stage, count, alphas, label, seed):
    config = AugmentConfig(cutmix_label=label)
    mixup, cutmix = alphas
    images, targets = _mix(stage, count, mixup=mixup, cutmix=cutmix, config=config, seed=seed)
    assert torch.allclose(targets.sum(1), torch.ones(count), atol=1e-6)
    assert targets.min() >= 0
    assert images.min() >= 0
    assert images.max() <= count - 1 + 1e-5


def test_nothing_is_touched_when_both_are_off(stage):
    images, targets = _batch(4)
    mixed = mix_batch(images, targets, stage(), AREA, seed=0)
    assert mixed[0] is images
    assert mixed[1] is targets


def test_mixup_weighs_images_as_targets_and_keeps_most_of_the_own_image(stage):
    images, targets = _mix(stage, mixup=1.0)
    for row in range(8):
        own, other = targets[row, row], targets[row, 7 - row]
        assert own >= 0.5
        assert own + other == pytest.approx(1)
        assert torch.allclose(images[row], own * row + other * (7 - row), atol=1e-5)


def test_every_image_has_a_weight_of_its_own(stage):
    _, targets = _mix(stage, mixup=1.0)
    assert len(torch.diag(targets).unique()) == 8


def test_cutmix_weighs_targets_by_the_pasted_area(stage):
    images, targets = _mix(stage, cutmix=1.0, side=16)
    for row in range(8):
        pasted = (images[row, 0] == 7 - row).float().mean().item()
        assert pasted + (images[row, 0] == row).float().mean().item() == 1
        assert targets[row, 7 - row].item() == pytest.approx(pasted, abs=1e-6)


def test_cutmix_pastes_rectangles(stage):
    images, _ = _mix(stage, cutmix=1.0, side=16, seed=3)
    for row in range(8):
        ys, xs = torch.nonzero(images[row, 0] == 7 - row, as_tuple=True)
        if len(ys):
            assert len(ys) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
    assert torch.equal(images[:, 0], images[:, 2])


def test_cutmix_pastes_half_on_average_but_for_what_falls_over_the_border(stage):
    images, _ = _mix(stage, 400, cutmix=1.0, side=32)
    pasted = (images[:, 0] != torch.arange(400.0)[:, None, None]).float().mean()
    assert 0.25 < pasted < 0.5


def test_batch_mean_gives_all_images_one_weight_and_the_same_pixels(stage):
    own_images, own = _mix(stage, cutmix=1.0, side=16)
    images, targets = _mix(stage, cutmix=1.0, side=16, config=BATCH_MEAN)
    assert torch.equal(images, own_images)
    assert torch.allclose(torch.diag(targets), torch.diag(own).mean(), atol=1e-6)


def test_both_share_the_batch_in_halves_that_do_not_meet(stage):
    images, targets = _mix(stage, 8, mixup=1.0, cutmix=1.0, side=16)
    assert targets[:4, 4:].sum() == 0
    assert targets[4:, :4].sum() == 0
    assert all(targets[row, 3 - row] > 0 for row in range(4))
    assert all(len(images[row].unique()) == 1 for row in range(4))
    assert all(set(images[row].unique().tolist()) <= {row, 11 - row} for row in range(4, 8))
    assert any(len(images[row].unique()) == 2 for row in range(4, 8))


def test_seed_decides(stage):
    first, again, other = (_mix(stage, mixup=0.4, cutmix=0.4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_mixing_keeps_type_and_memory_layout(stage):
    images, targets = _batch(6)
    images = images.to(torch.bfloat16, memory_format=torch.channels_last)
    mixed, mixed_targets = mix_batch(images, targets, stage(mixup_alpha=0.5, cutmix_alpha=0.5), AREA, seed=0)
    assert mixed.dtype == torch.bfloat16
    assert mixed_targets.dtype == torch.float32
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_mixing_is_the_same_on_a_gpu(stage):
    images, targets = _batch(9)
    chosen = stage(mixup_alpha=0.5, cutmix_alpha=0.5)
    expected = mix_batch(images, targets, chosen, AREA, seed=4)
    got = mix_batch(images.cuda(), targets.cuda(), chosen, AREA, seed=4)
    assert torch.allclose(got[0].cpu(), expected[0], atol=1e-5)
    assert torch.allclose(got[1].cpu(), expected[1], atol=1e-6)


def test_mixup_weights_follow_the_folded_beta_distribution(stage):
    _, targets = _mix(stage, 2000, mixup=0.2)
    drawn = np.random.default_rng(9).beta(0.2, 0.2, 20_000)
    expected = np.maximum(drawn, 1 - drawn).mean()
    assert torch.diag(targets).mean().item() == pytest.approx(expected, abs=0.02)

import numpy as np
import pytest
import torch

from effnet.explanation.methods import Effort
from effnet.explanation.perturbing import integrated_gradients, occlusion


def test_integrated_gradients_add_up_to_the_difference_of_the_logits(model, pixels, classes):
    """Completeness (1703.01365, proposition 1), closer with more steps."""
    model.eval()
    with torch.no_grad():
        logits, baseline = model(pixels), model(torch.zeros_like(pixels))
    expected = (logits - baseline).gather(1, classes[:, None])[:, 0]
    errors = []
    for steps in (4, 64):
        shares = integrated_gradients(model, pixels, classes, Effort(steps=steps))
        assert shares.shape == pixels.shape
        errors.append((shares.sum((1, 2, 3)) - expected).abs().max().item())
    assert errors[1] < 0.01 * expected.abs().max()
    assert errors[1] < errors[0]


def test_occlusion_is_the_mean_fall_of_the_logit_under_all_squares(model, pixels, classes):
    model.eval()
    found = occlusion(model, pixels, classes, Effort(window_share=9 / 33, stride_share=6 / 33))
    falls, covered = np.zeros((3, 33, 33)), np.zeros((33, 33))
    with torch.no_grad():
        before = model(pixels)
        for top in range(0, 25, 6):
            for left in range(0, 25, 6):
                changed = pixels.clone()
                changed[:, :, top : top + 9, left : left + 9] = 0
                fall = (before - model(changed)).gather(1, classes[:, None])[:, 0].numpy()
                falls[:, top : top + 9, left : left + 9] += fall[:, None, None]
                covered[top : top + 9, left : left + 9] += 1
    np.testing.assert_allclose(found[:, 0].detach(), falls / covered, rtol=1e-3, atol=1e-4)
    assert torch.equal(found[:, 0], found[:, 2])


def test_the_number_of_images_at_a_time_changes_nothing(model, pixels, classes):
    model.eval()
    for attribute in (occlusion, integrated_gradients):
        some, many = (
            attribute(model, pixels, classes, Effort(batch_size=size, steps=8, stride_share=0.15))
            for size in (3, 100)
        )
        torch.testing.assert_close(some, many, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("side", [8, 33])
def test_squares_of_occlusion_have_at_least_one_pixel(model, side):
    model.eval()
    effort = Effort(window_share=0.01, stride_share=0.9)
    found = occlusion(model, torch.ones(1, 3, side, side)[:, :, :2, :2], torch.tensor([0]), effort)
    assert found.shape == (1, 3, 2, 2)

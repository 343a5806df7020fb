"""The formulas against transcriptions of the papers by loops."""

import numpy as np
import pytest
import torch

from effnet.explanation.cams import cam, eigen_cam, grad_cam, grad_cam_plus_plus, layer_cam


@pytest.fixture
def features():
    return torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def gradients():
    return torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1))


def _sum_of_channels(features, weights):
    images, channels, height, width = features.shape
    found = np.zeros((images, height, width))
    for n in range(images):
        for k in range(channels):
            for i in range(height):
                for j in range(width):
                    found[n, i, j] += weights(n, k, i, j) * float(features[n, k, i, j])
    return found


def test_cam_is_equation_2_of_zhou(features):
    weights = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    expected = _sum_of_channels(features, lambda n, k, i, j: float(weights[n, k]))
    np.testing.assert_allclose(cam(features, weights), expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_is_equation_1_of_selvaraju(features, gradients):
    expected = _sum_of_channels(features, lambda n, k, i, j: float(gradients[n, k].sum()) / 12)
    np.testing.assert_allclose(grad_cam(features, gradients), expected, rtol=1e-4, atol=1e-5)


def test_grad_cam_plus_plus_is_equations_11_and_19_of_chattopadhyay(features, gradients):
    def weight(n, k, i, j):
        total = 0.0
        for a in range(3):
            for b in range(4):
                g = float(gradients[n, k, a, b])
                alpha = g**2 / (2 * g**2 + float(features[n, k].sum()) * g**3)
                total += alpha * max(g, 0.0)
        return total

    expected = _sum_of_channels(features, weight)
    np.testing.assert_allclose(grad_cam_plus_plus(features, gradients), expected, rtol=1e-3, atol=1e-4)


def test_grad_cam_plus_plus_gives_nothing_for_gradients_that_are_0(features):
    assert torch.equal(grad_cam_plus_plus(features, torch.zeros_like(features)), torch.zeros(2, 3, 4))


def test_layer_cam_is_equation_6_of_jiang(features, gradients):
    expected = _sum_of_channels(features, lambda n, k, i, j: max(float(gradients[n, k, i, j]), 0.0))
    np.testing.assert_allclose(layer_cam(features, gradients), expected, rtol=1e-4, atol=1e-5)


def test_eigen_cam_is_the_projection_on_the_first_eigenvector(features):
    found = eigen_cam(features).numpy()
    for n in range(2):
        pixels = features[n].numpy().reshape(5, 12).T.astype(np.float64)
        values, vectors = np.linalg.eigh(pixels.T @ pixels)
        projected = (pixels @ vectors[:, values.argmax()]).reshape(3, 4)
        np.testing.assert_allclose(found[n], projected * np.sign(projected.sum()), rtol=1e-4, atol=1e-5)


def test_eigen_cam_shows_what_the_features_have_in_common():
    pattern = torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 0.0]])
    features = torch.tensor([1.0, -2.0, 0.5])[None, :, None, None] * pattern
    found = eigen_cam(features)[0]
    torch.testing.assert_close(found / found.max(), pattern / 3, rtol=1e-4, atol=1e-5)

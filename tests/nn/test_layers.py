import pytest
import torch

from effnet.nn.layers import mean_of_pixels


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("size", [1, 7, 16, 65])
def test_the_mean_of_pixels_is_torchs_bit_for_bit(layout, size):
    generator = torch.Generator().manual_seed(size)
    pixels = torch.randn(3, 24, size, size, generator=generator).to(memory_format=layout)
    factor = torch.randn(3, 24, 1, 1, generator=generator)
    found = []
    for mean in (mean_of_pixels, lambda x: x.mean((2, 3), keepdim=True)):
        x = pixels.clone(memory_format=torch.preserve_format).requires_grad_()
        out = mean(x)
        (x * (out * factor)).square().sum().backward()
        found.append((out.detach(), x.grad))
        assert x.grad.is_contiguous(memory_format=layout)
    assert all(torch.equal(ours, expected) for ours, expected in zip(*found, strict=True))


def test_a_large_mean_in_half_precision_does_not_overflow():
    x = torch.full((1, 1, 64, 64), 100.0, dtype=torch.float16, requires_grad=True)
    assert mean_of_pixels(x).item() == 100.0

import pytest
import torch
from torch import nn

from effnet.kernels import dispatch
from effnet.nn.depthwise import can_convolve, convolve
from effnet.nn.layers import SameConv2d


def depthwise(size=3, stride=1, *, channels=4, **changes) -> nn.Conv2d:
    options = {"groups": channels, "bias": False, "padding": size // 2} | changes
    return nn.Conv2d(channels, channels, size, stride, **options)


def test_depthwise_convolutions_of_every_stage_can_be_convolved():
    assert all(can_convolve(depthwise(size, stride), "triton") for size in (3, 5) for stride in (1, 2))


@pytest.mark.parametrize(
    "conv",
    [
        depthwise(7),
        depthwise(3, 3),
        depthwise(groups=2),
        depthwise(bias=True),
        depthwise().eval(),
        nn.Identity(),
    ],
    ids=["kernel", "stride", "groups", "bias", "evaluation", "other layer"],
)
def test_what_the_kernels_do_not_know_stays_with_torch(conv):
    assert not can_convolve(conv, "triton")


@pytest.mark.parametrize("size", [7, 8])
def test_mixed_precision_rounds_the_activation_alone(monkeypatch, size):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, 3, 2, groups=4, bias=False)
    x = torch.randn(2, 4, size, size).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, conv, "triton", padding=conv.padding_of(x))
    out.sum().backward()
    assert (out.dtype, conv.weight.grad.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), conv(x), rtol=0.05, atol=0.05)

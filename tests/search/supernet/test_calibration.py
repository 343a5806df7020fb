"""Statistics of batch norm for a network of the supernet."""

from __future__ import annotations

import torch

from effnet.nn import EfficientNet
from effnet.search.supernet.calibration import calibrate
from effnet.search.supernet.envelope import envelope_of
from effnet.search.supernet.network import Supernet


def images(number: int) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn(number, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def test_statistics_are_the_mean_over_the_batches(space):
    torch.manual_seed(0)
    network = EfficientNet(space.backbone)
    network.set_drop_path(0.5)
    first, second = images(8).split(4)
    calibrate(network, [first, second])
    with torch.no_grad():
        outputs = [network.stem.conv(batch) for batch in (first, second)]
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(network.stem.norm.running_mean, mean)
    torch.testing.assert_close(network.stem.norm.running_var, variance)


def test_old_statistics_are_forgotten_and_nothing_else_changes(space):
    torch.manual_seed(0)
    network = EfficientNet(space.backbone)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    calibrate(network, [100 * images(4)])
    calibrate(network, [images(4)])
    once = EfficientNet(space.backbone)
    once.load_state_dict(before, strict=False)
    calibrate(once, [images(4)])
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, dict(once.named_buffers())[name], msg=name)
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())
    assert not any(module.training for module in network.modules())
    assert {m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_a_calibrated_network_in_evaluation_gives_nearly_what_it_gives_on_its_batch(space):
    """With one batch both normalise by the same mean; variances differ by Bessel's correction."""
    torch.manual_seed(0)
    supernet = Supernet(envelope_of(space))
    batch = images(8)
    network = supernet.extract(space.backbone)
    calibrate(network, [batch])
    with torch.no_grad():
        torch.testing.assert_close(network(batch), supernet(batch, space.backbone), rtol=0.02, atol=0.01)

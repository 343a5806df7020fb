import pytest
import torch
from torch import nn

from effnet.arch import NetworkSpec, StageSpec
from effnet.nn import EfficientNet
from effnet.nn.folding import fold_norms


def _network(padding: str, operation: str) -> EfficientNet:
    expand = 1 if operation == "conv" else 2
    stage = StageSpec(
        operation=operation, kernel_size=3, stride=2, expand_ratio=expand, channels=8, repeats=2
    )
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=16, image_size=16, train_size=16,
        padding=padding, num_classes=5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = EfficientNet(spec)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.1, 4.0)
    return model.eval()


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("operation", ["conv", "mbconv", "fused_mbconv", "bottleneck"])
@torch.no_grad()
def test_a_folded_network_computes_the_same(padding, operation):
    model = _network(padding, operation)
    images = torch.randn(3, 3, 17, 17)
    torch.testing.assert_close(fold_norms(model)(images), model(images), rtol=1e-4, atol=1e-5)


def test_no_batch_norm_is_left_and_the_network_stays_as_it_was():
    model = _network("same", "mbconv")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_norms(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="evaluation mode only"):
        fold_norms(_network("same", "mbconv").train())

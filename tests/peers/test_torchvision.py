from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from effnet.arch import family, network_cost
from effnet.nn import EfficientNet
from effnet.weights import export_torchvision, load_weights
from effnet.weights.networks import TORCHVISION, with_conventions

pytestmark = pytest.mark.peers


def create(torchvision, name):
    with torch.device("meta"):
        return getattr(torchvision.models, TORCHVISION[name])(num_classes=11).eval()


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_same_weights_give_the_same_logits_both_ways(
    name, torchvision, make_network, assert_same_logits, tmp_path
):
    spec = replace(with_conventions(family.network(name), "torchvision"), num_classes=11)
    ours, theirs = make_network(spec), create(torchvision, name)
    export_torchvision(tmp_path / "x.safetensors", ours.state_dict(), spec)
    theirs.load_state_dict(load_file(tmp_path / "x.safetensors"), strict=True, assign=True)
    assert_same_logits(ours, theirs)
    norm = theirs.bn1 if name == "resnet-50" else theirs.features[0][1]
    assert (norm.eps, norm.momentum) == (spec.norm_epsilon, spec.norm_momentum)

    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    loaded = load_weights(str(tmp_path / "x.pth"), family.network(name))
    assert loaded.spec == spec
    assert sum(p.numel() for p in theirs.parameters()) == network_cost(spec).params
    again = EfficientNet(loaded.spec).eval()
    again.load_state_dict(loaded.state)
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in ours.state_dict().items())


def test_the_returned_line_builds_the_model(torchvision, tmp_path, make_network):
    spec = replace(with_conventions(family.network("v2-s"), "torchvision"), num_classes=3)
    line = export_torchvision(tmp_path / "x.safetensors", make_network(spec).state_dict(), spec)
    model = eval(line, {"torchvision": torchvision})
    model.load_state_dict(load_file(tmp_path / "x.safetensors"), strict=True)

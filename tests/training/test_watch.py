import pytest
import torch
from torch import nn

from effnet.training.watch import Findings, watched


@pytest.fixture
def look(make_network):
    """Watch one step of a network after something was done to it: ``look(spoil, images)``."""

    def run(spoil=lambda network: None, images=None) -> tuple[nn.Module, float, Findings]:
        network = make_network()
        network.train()
        spoil(network)

        def step() -> torch.Tensor:
            loss = network(torch.rand(4, 3, 6, 6) if images is None else images).square().sum()
            loss.backward()
            return loss.detach()

        loss, findings = watched(step, network)
        return network, float(loss), findings

    return run


def test_a_good_step_has_nothing_to_tell(look):
    _, loss, findings = look()
    assert findings.of_loss(loss, 3) == findings.of_gradients(3) == ""
    assert [name for name, _ in findings.outputs] == [
        "the images", "the output of stem", "the output of norm", "the output of classifier"
    ]  # fmt: skip
    assert {name for name, _ in findings.gradients} == {
        f"that of {name}.{kind}" for name in ("stem", "norm", "classifier") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("layer", ["stem", "norm", "classifier"])
def test_the_first_layer_whose_output_is_not_finite_is_named(look, layer):
    def spoil(network):
        with torch.no_grad():
            network.get_submodule(layer).bias[1] = float("inf")

    _, loss, findings = look(spoil)
    assert findings.of_loss(loss, 7).endswith(f"at step 7, which begins in the output of {layer}")


def test_images_that_are_not_finite_are_named(look):
    images = torch.rand(4, 3, 6, 6)
    images[2, 1, 0, 0] = float("nan")
    _, loss, findings = look(images=images)
    assert findings.of_loss(loss, 7) == "the loss is nan at step 7, which begins in the images"


def test_a_loss_that_is_not_finite_by_itself_is_named(look):
    _, _, findings = look()
    assert findings.of_loss(float("nan"), 0) == "the loss is nan at step 0, which begins in the loss itself"


def test_the_first_gradient_that_is_not_finite_is_the_last_layers(look):
    def spoil(network):
        network.norm.register_full_backward_hook(lambda *_: (torch.full((4, 4, 4, 4), float("nan")),))

    _, loss, findings = look(spoil)
    # Backwards: the classifier and the norm are good, and the layer in front of them is not.
    told = findings.of_gradients(5)
    assert findings.of_loss(loss, 5) == ""
    assert told.startswith("a gradient is not finite at step 5, which begins in that of stem.")


def test_nothing_stays_behind(look):
    network, _, _ = look()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in network.parameters())


def test_what_does_not_learn_has_no_gradient_to_look_at(look):
    _, loss, findings = look(lambda network: network.stem.requires_grad_(False))
    assert findings.of_loss(loss, 0) == findings.of_gradients(0) == ""
    assert not any("stem" in name for name, _ in findings.gradients)

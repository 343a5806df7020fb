from dataclasses import replace

import pytest
import torch

from effnet.arch import ExternalSpec, NetworkSpec, Preprocessing, StageSpec
from effnet.errors import UserError
from effnet.nn import EfficientNet, build_model
from effnet.weights import LoadedWeights, average_weights

STAGE = StageSpec(operation="conv", kernel_size=3, stride=2, expand_ratio=1, channels=8, repeats=1)
SPEC = NetworkSpec(
    name="tiny", stages=(STAGE,), stem_channels=8, head_channels=8, image_size=8, train_size=8, num_classes=3
)

EXTERNAL = ExternalSpec(
    name="timm:x", preprocessing=Preprocessing(image_size=8), train_size=8, classifier="fc", num_classes=3
)


def weights(seed=0, spec=SPEC, **changes):
    torch.manual_seed(seed)
    model = EfficientNet(spec)
    model(torch.randn(4, 3, 8, 8))  # so that the statistics of batch norm differ as well
    loaded = LoadedWeights(
        state=model.state_dict(),
        spec=spec,
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(image_size=8),
        origin=f"run {seed}",
    )
    return replace(loaded, **changes)


def test_equal_weights_have_themselves_as_mean():
    one = weights()
    soup = average_weights([one, one, one])
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = build_model(one.spec, weights=one).eval()(images)
        assert torch.equal(build_model(soup.spec, weights=soup).eval()(images), expected)


def test_every_tensor_is_averaged_with_the_statistics_of_batch_norm():
    first, second = weights(1), weights(2)
    soup = average_weights([first, second])
    assert soup.state.keys() == first.state.keys()
    for name, tensor in soup.state.items():
        assert tensor.dtype == first.state[name].dtype
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (first.state[name] + second.state[name]) / 2)
    changed = [name for name in soup.state if not torch.equal(first.state[name], second.state[name])]
    assert any("running_var" in name for name in changed)


def test_a_soup_says_what_is_in_it_and_is_otherwise_its_first_part():
    larger = replace(weights(2), preprocessing=Preprocessing(image_size=16))
    soup = average_weights([weights(1), larger])
    assert soup.origin == "mean of 2: run 1, run 2"
    assert soup.preprocessing == Preprocessing(image_size=8)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"class_names": ("b", "a", "c")}, "their classes, or the order of these"),
        ({"output": "sigmoid"}, r"how logits become probabilities \(softmax and sigmoid\)"),
        (
            {"spec": replace(SPEC, name="wide", stem_channels=16)},
            r"the network's stem_channels \(tiny and wide\)",
        ),
        ({"spec": replace(SPEC, activation="relu")}, "the network's activation"),
        ({"spec": EXTERNAL}, r"the network \(tiny and timm:x\)"),
        ({"preprocessing": Preprocessing(image_size=8, crop_fraction=0.5)}, "how images are prepared"),
    ],
)
def test_other_weights_cannot_be_averaged(changes, difference):
    message = f"^only weights of one network .* run 0 and run 1 differ in {difference}.*--ensemble$"
    with pytest.raises(UserError, match=message):
        average_weights([weights(), replace(weights(1), **changes)])


def test_networks_of_timm_may_come_from_weights_of_other_names():
    state = {"fc.weight": torch.zeros(3, 4)}
    parts = [
        replace(weights(), spec=spec, state=state)
        for spec in (EXTERNAL, replace(EXTERNAL, name="timm:x.in1k", train_size=16))
    ]
    assert torch.equal(average_weights(parts).state["fc.weight"], state["fc.weight"])
    with pytest.raises(UserError, match=r"differ in the network \(timm:x and timm:y\)"):
        average_weights([parts[0], replace(parts[1], spec=replace(EXTERNAL, name="timm:y"))])

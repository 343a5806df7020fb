from dataclasses import replace

import pytest

from effnet.arch import family
from effnet.errors import UserError
from effnet.weights.networks import (
    from_timm_name,
    pretrained_name,
    published_name,
    released_output,
    timm_name,
    with_conventions,
)

NETWORKS = [name for name in family.names() if "." not in name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("same_padding", [True, False])
def test_timm_names_go_there_and_back(name, same_padding):
    spec = from_timm_name(timm_name(name, same_padding=same_padding))
    assert spec.name == name
    is_tensorflow = (same_padding or name.startswith("v2-b")) and name[0] == "v"
    assert (spec.padding, spec.norm_epsilon, spec.norm_momentum) == (
        ("same", 1e-3, 0.1) if is_tensorflow else ("symmetric", 1e-5, 0.1)
    )


@pytest.mark.parametrize(
    ("name", "same_padding", "theirs"),
    [
        ("v1-b0", True, "tf_efficientnet_b0"),
        ("v1-b8", False, "efficientnet_b8"),
        ("v1-l2", True, "tf_efficientnet_l2"),
        ("v1-lite4", True, "tf_efficientnet_lite4"),
        ("v1-lite0", False, "efficientnet_lite0"),
        ("v2-xl", True, "tf_efficientnetv2_xl"),
        ("v2-m", False, "efficientnetv2_m"),
        ("v2-b3", False, "tf_efficientnetv2_b3"),
        ("mobilenet-v1", True, "mobilenetv1_100"),
        ("mobilenet-v2", False, "mobilenetv2_100"),
        ("resnet-50", True, "resnet50"),
    ],
)
def test_timm_names_are_timms(name, same_padding, theirs):
    assert timm_name(name, same_padding=same_padding) == theirs


def test_unknown_timm_networks_are_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"'efficientnetv2_rw_s' of timm .*; did you mean 'efficientnetv2_s'\?"
    ):
        from_timm_name("efficientnetv2_rw_s")


def test_published_name_sees_layers_only():
    spec = family.network("v2-m")
    assert published_name(replace(spec, name="mine", num_classes=3, padding="symmetric")) == "v2-m"
    assert published_name(family.network("v1-b0.higher-resolution")) == "v1-b0"
    assert published_name(spec.with_stages(residual=False)) is None
    resnet = family.network("resnet-50")
    assert published_name(replace(resnet, padding="same", num_classes=3)) == "resnet-50"
    assert published_name(replace(resnet, stem_pooling=False)) is None
    assert published_name(replace(resnet, stem_kernel_size=3)) is None


@pytest.mark.parametrize(
    ("name", "epsilon", "momentum"),
    [
        ("v1-b0", 1e-5, 0.1),
        ("v1-b4", 1e-5, 0.1),
        ("v1-b5", 1e-3, 0.01),
        ("v1-b7", 1e-3, 0.01),
        ("v2-l", 1e-3, 0.1),
        ("mobilenet-v2", 1e-5, 0.1),
        ("resnet-50", 1e-5, 0.1),
    ],
)
def test_torchvision_conventions(name, epsilon, momentum):
    spec = with_conventions(family.network(name), "torchvision")
    assert (spec.padding, spec.norm_epsilon, spec.norm_momentum) == ("symmetric", epsilon, momentum)


def test_other_conventions():
    spec = replace(family.network("v1-b0"), padding="symmetric", norm_epsilon=1e-5, norm_momentum=0.5)
    assert with_conventions(spec, "timm") == with_conventions(spec, "effnet") == spec
    keras = with_conventions(spec, "keras")
    assert (keras.padding, keras.norm_epsilon, keras.norm_momentum) == ("same", 1e-3, 0.5)
    lukemelas = with_conventions(spec, "lukemelas")
    assert (lukemelas.padding, lukemelas.norm_epsilon, lukemelas.norm_momentum) == ("same", 1e-3, 0.01)


@pytest.mark.parametrize(
    ("network", "hub_name"),
    [
        ("v2-b0", "timm/tf_efficientnetv2_b0.in1k"),
        ("v2-s", "timm/tf_efficientnetv2_s.in21k_ft_in1k"),
        ("v1-b4", "timm/tf_efficientnet_b4.ns_jft_in1k"),
        ("v1-lite2", "timm/tf_efficientnet_lite2.in1k"),
        ("mobilenet-v1", "timm/mobilenetv1_100.ra4_e3600_r224_in1k"),
        ("mobilenet-v2", "timm/mobilenetv2_100.ra_in1k"),
        ("resnet-50", "timm/resnet50.a1_in1k"),
    ],
)
def test_pretrained_weights_are_the_best_released_ones(network, hub_name):
    assert pretrained_name(family.network(network)) == hub_name


def test_every_published_network_but_those_of_figure_7_has_pretrained_weights():
    for name in family.names():
        spec = family.network(name)
        if name in {"v1-b0.deeper", "v1-b0.wider"}:
            with pytest.raises(UserError, match=f"no pretrained weights of {name} were released"):
                pretrained_name(spec)
        else:
            assert pretrained_name(spec).startswith("timm/tf_" if name[0] == "v" else "timm/")


def test_released_weights_for_21k_have_a_sigmoid_and_all_others_a_softmax():
    assert released_output(21_843) == "sigmoid"
    assert {released_output(classes) for classes in (10, 1000, 1001, 21_841)} == {"softmax"}

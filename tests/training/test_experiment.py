"""What a configuration comes to, before the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.arch import IMAGENET_MEAN, NetworkSpec, Preprocessing, StageSpec, network, spec_to_json
from effnet.config import Config, DataConfig, EvaluateConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.data.images import DataSplit, LabelledImages
from effnet.errors import UserError
from effnet.nn import EfficientNet
from effnet.recipes import config_from_toml, config_to_toml, load_recipe
from effnet.training.experiment import choose_device, network_of, prepare_experiment, resolve_alone
from effnet.training.split import check_split, write_split
from effnet.weights import save_weights

TINY = NetworkSpec(
    name="tiny",
    stages=(StageSpec(operation="mbconv", kernel_size=3, stride=1, expand_ratio=2, channels=8, repeats=2),),
    stem_channels=8,
    head_channels=16,
    image_size=40,
    train_size=32,
)


@pytest.fixture
def tiny(tmp_path) -> ModelConfig:
    path = tmp_path / "tiny.json"
    path.write_text(spec_to_json(TINY))
    return ModelConfig(network=str(path))


def digits(model: ModelConfig, **sections: object) -> Config:
    return Config(**({"model": model, "data": DataConfig(source="digits")} | sections))


# The data


def test_data_with_another_number_of_classes_than_the_recipes_is_refused(tiny):
    config = digits(tiny, data=DataConfig(source="digits", classes=1000))
    with pytest.raises(UserError) as caught:
        prepare_experiment(config)
    assert str(caught.value) == (
        "the recipe is for data with 1,000 classes (data.classes), but 'digits' has 10; give other data, or "
        "--set data.classes=0 to train on it nevertheless"
    )
    for classes in (0, 10):
        changed = replace(config, data=replace(config.data, classes=classes))
        assert prepare_experiment(changed).spec.num_classes == 10


# The network


def test_the_network_is_the_named_one():
    assert network_of(ModelConfig(network="v2-s")) == network("v2-s")
    assert network_of(ModelConfig(network="v1-b0.fused1-3")) == network("v1-b0.fused1-3")


def test_width_and_depth_scale_the_network():
    half = network_of(ModelConfig(network="v2-b0", width=0.5, depth=0.5))
    full = network("v2-b0")
    assert [stage.channels for stage in half.stages] == [8, 16, 24, 48, 56, 96]
    assert half.num_blocks < full.num_blocks
    assert half.train_size == full.train_size


@pytest.mark.parametrize(
    ("key", "value"),
    [("activation", "relu"), ("padding", "symmetric"), ("norm_epsilon", 0.01), ("norm_momentum", 0.3)],
)
def test_an_override_changes_this_alone(key, value):
    changed = network_of(ModelConfig(network="v2-b0", **{key: value}))
    assert changed == replace(network("v2-b0"), **{key: value})


def test_shortcuts_can_be_left_out():
    blocks = list(network_of(ModelConfig(network="v2-b0", residual=False)).blocks())
    assert not any(block.has_residual for block in blocks)
    assert any(block.has_residual for block in network("v2-b0").blocks())


def test_the_classes_are_those_of_the_data(tiny):
    experiment = prepare_experiment(digits(tiny))
    assert experiment.spec == replace(TINY, num_classes=10)
    assert experiment.build_model()(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_training_can_be_limited_to_some_images_and_validation_is_not(tiny):
    every = prepare_experiment(digits(tiny))
    few = prepare_experiment(digits(tiny, data=DataConfig(source="digits", max_train_images=100)))
    assert np.bincount(few.data.train.labels).tolist() == [10] * 10
    assert few.schedule.train_images == 100
    assert set(few.data.train.names) < set(every.data.train.names)
    assert list(few.data.val.names) == list(every.data.val.names)


def test_two_builds_are_equal_and_another_seed_is_not(tiny):
    first, second = (prepare_experiment(digits(tiny)).build_model() for _ in range(2))
    other = prepare_experiment(digits(tiny, train=TrainConfig(seed=1))).build_model()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.stem.conv.weight, other.stem.conv.weight)


def test_biases_may_begin_where_a_sigmoid_gives_every_class_its_share(tiny):
    model = prepare_experiment(digits(tiny, train=TrainConfig(classifier_bias="prior"))).build_model()
    torch.testing.assert_close(model.classifier.bias.sigmoid(), torch.full((10,), 0.1))
    assert not prepare_experiment(digits(tiny)).build_model().classifier.bias.any()


# Sizes


@pytest.mark.parametrize(
    ("progressive", "train_size", "sizes"),
    [
        ({"stages": 4}, 32, (32, 32)),
        ({"stages": 4}, 300, (128, 300)),
        ({"stages": 1}, 300, (300, 300)),
        ({"stages": 4, "size_rule": "release"}, 300, (128, 300)),
        ({"stages": 3, "image_size": (8, 16)}, 300, (8, 16)),
    ],
)
def test_sizes_left_out_follow_from_the_network(progressive, train_size, sizes, tiny):
    Path(tiny.network).write_text(spec_to_json(replace(TINY, train_size=train_size)))
    experiment = prepare_experiment(digits(tiny, progressive=ProgressiveConfig(**progressive)))
    assert experiment.config.progressive.image_size == sizes
    assert experiment.schedule.stages[-1].image_size == sizes[1]
    # From scratch a network is evaluated at the size at which it was trained last.
    assert experiment.config.evaluate.image_size == sizes[1]
    assert experiment.preprocessing.image_size == sizes[1]


@pytest.mark.parametrize("rule", ["paper", "release"])
@pytest.mark.parametrize("multiple", [1, 8, 48])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_a_resolved_configuration_resolves_to_itself_and_to_the_same_stages(rule, multiple, stages, tiny):
    Path(tiny.network).write_text(spec_to_json(replace(TINY, train_size=300)))
    progressive = ProgressiveConfig(stages=stages, size_rule=rule, size_multiple=multiple)
    first = prepare_experiment(digits(tiny, progressive=progressive))
    text = config_to_toml(first.config)
    again = prepare_experiment(config_from_toml(text, "test"))
    assert again.config == first.config
    assert again.schedule == first.schedule
    assert again.preprocessing == first.preprocessing


def test_the_evaluation_size_can_be_chosen(tiny):
    experiment = prepare_experiment(digits(tiny, evaluate=EvaluateConfig(image_size=48)))
    assert experiment.preprocessing.image_size == 48
    assert experiment.schedule.stages[-1].image_size == 32


# Preprocessing and weights


@pytest.fixture
def weights(tmp_path) -> Path:
    """Trained elsewhere, for other classes, with symmetric padding and ImageNet's mean."""
    spec = replace(TINY, num_classes=12, padding="symmetric", norm_epsilon=1e-5, norm_momentum=0.02)
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    preprocessing = Preprocessing(
        image_size=56, mean=IMAGENET_MEAN, interpolation="bicubic", crop_fraction=0.8
    )
    names = ("9", "8", *(f"other {index}" for index in range(10)))
    save_weights(
        path,
        EfficientNet(spec).state_dict(),
        spec,
        class_names=names,
        preprocessing=preprocessing,
        provenance="test",
    )
    return path


def test_weights_bring_their_preprocessing_and_their_conventions(tiny, weights):
    experiment = prepare_experiment(digits(replace(tiny, weights=str(weights))))
    assert experiment.preprocessing == Preprocessing(
        image_size=56, mean=IMAGENET_MEAN, interpolation="bicubic", crop_fraction=0.8
    )
    assert experiment.config.evaluate.image_size == 56
    assert (experiment.spec.padding, experiment.spec.norm_epsilon) == ("symmetric", 1e-5)
    assert experiment.spec.norm_momentum == 0.02
    assert experiment.spec.num_classes == 10


def test_weights_for_other_classes_keep_the_rows_of_shared_names(tiny, weights):
    from safetensors.torch import load_file

    stored = load_file(weights)["classifier.weight"]
    model = prepare_experiment(digits(replace(tiny, weights=str(weights)))).build_model()
    assert torch.equal(model.classifier.weight[9], stored[0])
    assert torch.equal(model.classifier.weight[8], stored[1])
    assert not any(torch.equal(model.classifier.weight[0], row) for row in stored)


@pytest.mark.parametrize("named", [21_843, 21_842])
def test_released_weights_get_names_and_shared_classes_keep_their_rows(tiny, tmp_path, named):
    spec = replace(TINY, num_classes=21_843)
    state = EfficientNet(spec).state_dict()
    unnamed = {"class_names": None, "preprocessing": Preprocessing(image_size=32), "provenance": "test"}
    save_weights(tmp_path / "21k.safetensors", state, spec, **unnamed)
    names = [f"n{number:08}" for number in range(named)]
    names[3690], names[17] = "3", "8"
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    model = replace(
        tiny, weights=str(tmp_path / "21k.safetensors"), weights_class_names=str(tmp_path / "names.txt")
    )
    classifier = prepare_experiment(digits(model)).build_model().classifier
    assert torch.equal(classifier.weight[3], state["classifier.weight"][3690])
    assert torch.equal(classifier.weight[8], state["classifier.weight"][17])
    assert not classifier.weight[[0, 1, 2, 4, 5, 6, 7, 9]].any()


def test_names_must_be_as_many_as_the_weights_have_classes(tiny, weights, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\n")
    names = str(tmp_path / "names.txt")
    with pytest.raises(UserError, match="brings the names of its classes; leave it out"):
        prepare_experiment(digits(replace(tiny, weights=str(weights), weights_class_names=names)))
    spec = replace(TINY, num_classes=3)
    unnamed = {"class_names": None, "preprocessing": None, "provenance": ""}
    save_weights(weights, EfficientNet(spec).state_dict(), spec, **unnamed)
    with pytest.raises(UserError, match=r"names.txt' has 2 names, but .* has 3 classes"):
        prepare_experiment(digits(replace(tiny, weights=str(weights), weights_class_names=names)))


def test_momentum_of_the_statistics_can_differ_from_the_weights(tiny, weights):
    model = replace(tiny, weights=str(weights), norm_momentum=0.5)
    assert prepare_experiment(digits(model)).spec.norm_momentum == 0.5


def test_evaluation_of_weights_can_be_changed(tiny, weights):
    model = replace(tiny, weights=str(weights))
    changed = prepare_experiment(digits(model, evaluate=EvaluateConfig(image_size=64)))
    assert (changed.preprocessing.image_size, changed.preprocessing.crop_fraction) == (64, 0.8)
    squashed = prepare_experiment(digits(model, evaluate=EvaluateConfig(crop_mode="squash")))
    assert (squashed.preprocessing.crop_mode, squashed.preprocessing.crop_fraction) == ("squash", 1.0)
    assert squashed.preprocessing.mean == IMAGENET_MEAN
    assert squashed.preprocessing.interpolation == squashed.config.evaluate.interpolation == "bicubic"
    bilinear = prepare_experiment(digits(model, evaluate=EvaluateConfig(interpolation="bilinear")))
    assert bilinear.preprocessing.interpolation == "bilinear"


def test_from_scratch_a_center_crop_at_another_size_is_that_of_small_networks(tiny):
    model = replace(tiny, network="v1-b7")
    own = prepare_experiment(digits(model, evaluate=EvaluateConfig(image_size=600))).preprocessing
    other = prepare_experiment(digits(model, evaluate=EvaluateConfig(image_size=64))).preprocessing
    assert (own.crop_mode, other.crop_mode) == ("center", "center")
    assert own.crop_fraction > 0.9
    assert other.crop_fraction == 0.875


@pytest.mark.parametrize("size", ["s", "m", "l", "xl"])
def test_pretraining_on_21k_is_evaluated_on_the_released_crop_of_small_images(size):
    """Below 320 px, the release cuts size / (size + 32) of the short side; above, it squashes."""
    preprocessing = resolve_alone(load_recipe(f"v2-{size}.21k")).preprocessing
    assert preprocessing is not None
    assert (preprocessing.image_size, preprocessing.crop_mode) == (224, "center")
    assert preprocessing.crop_fraction == 224 / (224 + 32)


@pytest.mark.parametrize(
    ("model", "train", "key"),
    [
        ({"weights_class_names": "names.txt"}, {}, "model.weights_class_names"),
        ({}, {"freeze_norm": True}, "train.freeze_norm"),
    ],
)
def test_what_is_about_weights_is_refused_without_them(tiny, model, train, key):
    with pytest.raises(UserError) as caught:
        prepare_experiment(digits(replace(tiny, **model), train=TrainConfig(**train)))
    assert str(caught.value) == (
        f"{key} is set, but there are no weights that it could be about; give model.weights, or leave it out"
    )


def test_weights_of_another_network_are_refused(tiny, weights, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(spec_to_json(replace(TINY, name="other", head_channels=24)))
    with pytest.raises(UserError, match=r"weights of tiny, and other has other layers"):
        prepare_experiment(digits(ModelConfig(network=str(other), weights=str(weights))))


# The device


def test_the_device_is_chosen_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda"}


def test_a_name_that_is_no_device_is_told():
    with pytest.raises(UserError, match=r"auto, cpu, cuda or cuda:N, got 'gpu'"):
        choose_device("gpu")


def test_a_device_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"'cuda:2', but this machine shows 2 CUDA devices"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"'cuda', but this machine shows 0 CUDA devices"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["meta", "mps", "xla"])
def test_only_processors_and_cuda_are_devices(name):
    with pytest.raises(UserError, match="auto, cpu, cuda or cuda:N"):
        choose_device(name)


# The data of a run


def split(train: list[str], val: list[str], class_names: tuple[str, ...] = ("cat", "dog")) -> DataSplit:
    def images(names: list[str]) -> LabelledImages:
        return LabelledImages(
            class_names=class_names,
            labels=np.array([class_names.index(name.split("/")[0]) for name in names], dtype=np.int64),
            names=tuple(names),
            read=lambda index: b"",
        )

    return DataSplit(train=images(train), val=images(val), is_drawn=True)


BEGAN = split(["cat/1", "cat/2", "dog/1", "dog/2"], ["cat/3", "dog/3"])


def test_the_same_data_passes(tmp_path):
    write_split(tmp_path / "split.json", BEGAN)
    check_split(tmp_path / "split.json", BEGAN)
    assert json.loads((tmp_path / "split.json").read_text())["val"]["names"] == ["cat/3", "dog/3"]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (split(["cat/1", "cat/2", "dog/1"], ["cat/3", "dog/3"]), "4 -> 3 images in train"),
        (split(["cat/1", "cat/2", "dog/1", "dog/2"], ["cat/3"]), "2 -> 1 images in val"),
        (split(["cat/1", "cat/2", "dog/1", "dog/9"], ["cat/3", "dog/3"]), "not what this run began with"),
        (split(["cat/2", "cat/1", "dog/1", "dog/2"], ["cat/3", "dog/3"]), "not what this run began with"),
        (
            split(["cat/1", "cat/2", "dog/1", "dog/2"], ["cat/3", "dog/3"], ("cat", "dog", "emu")),
            "not what this run began with",
        ),
    ],
    ids=["lost", "lost from val", "renamed", "in another order", "another class"],
)
def test_other_data_is_refused(now, message, tmp_path):
    write_split(tmp_path / "split.json", BEGAN)
    with pytest.raises(UserError, match=message):
        check_split(tmp_path / "split.json", now)


def test_images_that_changed_their_class_are_refused(tmp_path):
    write_split(tmp_path / "split.json", BEGAN)
    swapped = replace(BEGAN.train, labels=BEGAN.train.labels[::-1].copy())
    with pytest.raises(UserError, match="not what this run began with"):
        check_split(tmp_path / "split.json", DataSplit(train=swapped, val=BEGAN.val, is_drawn=True))


# Growing


def test_a_run_can_start_from_the_weights_of_a_smaller_network(tiny, weights):
    small = prepare_experiment(digits(replace(tiny, weights=str(weights)))).build_model().eval()
    for source in (tiny.network, "auto"):
        model = replace(tiny, weights=str(weights), width=2.0, depth=1.5, grow_from=source)
        experiment = prepare_experiment(digits(model))
        grown = experiment.build_model().eval()
        assert grown.spec.stages[0].channels == 16
        assert grown.spec.stages[0].repeats == 3
        assert experiment.preprocessing.mean == IMAGENET_MEAN
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features, expected = (net.features(images)["head"].mean((2, 3)) for net in (grown, small))
        # The first of the grown channels are the old ones; the others are copies.
        torch.testing.assert_close(features[:, :16], expected, rtol=1e-4, atol=1e-5)


def test_growing_needs_weights_and_the_right_network(tiny, weights, fake_timm):
    with pytest.raises(UserError, match=r"model.grow_from is set, but there are no weights"):
        prepare_experiment(digits(replace(tiny, grow_from="auto")))
    with pytest.raises(UserError, match="holds the weights of tiny, and v2-b0 has other layers"):
        prepare_experiment(digits(replace(tiny, weights=str(weights), grow_from="v2-b0")))
    with pytest.raises(UserError, match="only EfficientNets can grow, and timm:tinynet is none"):
        prepare_experiment(
            digits(ModelConfig(network="timm:tinynet", weights=str(weights), grow_from="auto"))
        )
    with pytest.raises(UserError, match="tiny cannot grow into v2-b0: it has 6 stages instead of 1"):
        prepare_experiment(digits(ModelConfig(network="v2-b0", weights=str(weights), grow_from="auto")))

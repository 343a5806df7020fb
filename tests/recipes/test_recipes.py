"""Recipes are complete, survive TOML, extend each other, and wrong input is explained."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import network, released_preprocessing
from effnet.config import Config, DataConfig, ModelConfig, TrainConfig
from effnet.errors import UserError
from effnet.recipes import (
    config_from_toml,
    config_to_toml,
    load_recipe,
    recipe_names,
    recipe_summary,
    recipe_text,
    resolve_config,
)
from effnet.recipes.groups import grouped

PUBLISHED = [name for name in recipe_names() if name.endswith((".release", ".paper")) and name[:2] == "v2"]

# The last one, how images are prepared, is left out until a run is resolved.
SECTIONS = [section for section in fields(Config) if section.default is not None]


def test_the_shipped_recipes_are_all_there():
    releases = [f"v2-{size}.release" for size in ("b0", "b1", "b2", "b3", "s", "m", "l", "xl")]
    papers = [name.replace("release", "paper") for name in releases]
    v1 = [f"v1-b{number}.release" for number in range(8)] + ["v1-b5.randaugment", "v1-b7.randaugment"]
    kinds = ("21k", "21k-sigmoid", "21k-ft1k", "21k-ft1k-paper")
    large = [f"v2-{size}.{kind}" for size in ("s", "m", "l", "xl") for kind in kinds]
    sets = ("cifar10", "cifar100", "flowers102", "cars", "aircraft", "pets", "food101", "birdsnap")
    transfers = [f"transfer-{name}" for name in sets]
    rivals = ["v2-s.torchvision", "v2-m.torchvision"]
    small = [f"v2-{size}.small-gpu" for size in ("s", "m", "l")]
    others = ("resnet50-224", "resnet50", "resnet152", "v1-b4", "v1-b5")
    table12 = [f"{name}.table12" for name in others]
    own = ["ablation.small", "cifar10", "demo", "finetune", "scratch", "search"]
    assert recipe_names() == sorted(
        [*releases, *papers, *v1, *large, *transfers, *rivals, *small, *table12, *own]
    )


def test_every_recipe_is_listed_once_under_a_heading():
    groups = grouped([*recipe_names(), "mine"])
    assert sorted(name for names in groups.values() for name in names) == sorted([*recipe_names(), "mine"])
    assert groups.pop("others") == ["mine"]
    assert groups["your own images, and a first try"] == [
        "ablation.small",
        "cifar10",
        "demo",
        "finetune",
        "scratch",
        "search",
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_toml(name):
    config = load_recipe(name)
    assert config_from_toml(config_to_toml(config), "test") == config


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_how_and_with_what_result(name):
    header = recipe_text(name).split("\n\n")[0]
    assert all(line.startswith(("#", "extends = ")) for line in header.splitlines())
    for word in ("# Source: ", "# Command:  effnet train ", "# Cost: ", "# Result: "):
        assert word in header
    assert f"--recipe {name}\n" in header


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_names_a_published_network(name):
    name = load_recipe(name).model.network
    assert name in {"timm:resnet50", "timm:resnet152"} or network(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_fit_their_network(name):
    config = load_recipe(name)
    spec = network(config.model.network)
    preprocessing = released_preprocessing(spec)
    assert name.startswith(f"{spec.name}.")
    assert config.evaluate.image_size == spec.image_size == preprocessing.image_size
    assert config.evaluate.crop_mode == preprocessing.crop_mode
    assert config.data.interpolation == preprocessing.interpolation
    if name.endswith(".release"):
        assert config.progressive.image_size == (128, spec.train_size)
        assert config.progressive.dropout_rate == (spec.dropout_rate, spec.dropout_rate)
        assert config.model == ModelConfig(network=spec.name)


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("v1-")])
def test_recipes_of_v1_fit_their_network(name):
    config = load_recipe(name)
    spec = network(config.model.network)
    preprocessing = released_preprocessing(spec)
    assert name.startswith(f"{spec.name}.")
    assert config.evaluate.image_size == config.progressive.image_size[1] == spec.image_size
    assert config.evaluate.crop_mode == preprocessing.crop_mode
    assert config.data.interpolation == preprocessing.interpolation
    if not name.endswith(".table12"):
        assert config.progressive.dropout_rate == (spec.dropout_rate, spec.dropout_rate)
        assert (config.data.train_images, config.optimizer.weight_decay_exclude) == (1_281_167, "norm")


@pytest.mark.parametrize(
    ("name", "train_images", "classes"),
    [
        # 2104.00298 table 9 and 1905.11946 table 6.
        ("transfer-cifar10", 50_000, 10),
        ("transfer-cifar100", 50_000, 100),
        ("transfer-flowers102", 2_040, 102),
        ("transfer-cars", 8_144, 196),
        ("transfer-aircraft", 6_667, 100),
        ("transfer-pets", 3_680, 37),
        ("transfer-food101", 75_750, 101),
        ("transfer-birdsnap", 47_386, 500),
        # The release's ImageNet-21k without what it holds out.
        ("v2-s.21k", 12_720_275, 21_843),
        ("v2-s.21k-ft1k", 1_256_144, 1000),
    ],
)
def test_recipes_of_public_data_know_its_published_size(name, train_images, classes):
    data = load_recipe(name).data
    assert (data.train_images, data.classes) == (train_images, classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_share_the_paper_optimizer(name):
    config = load_recipe(name)
    optimizer, rate = config.optimizer, config.learning_rate
    assert (optimizer.name, optimizer.decay, optimizer.momentum, optimizer.epsilon) == (
        "rmsprop_tf",
        0.9,
        0.9,
        1e-3,
    )
    assert (optimizer.weight_decay, optimizer.weight_decay_mode) == (1e-5, "l2")
    assert rate.base * config.train.batch_size / rate.base_batch_size == pytest.approx(0.256)
    assert (config.train.epochs, config.train.label_smoothing, config.ema.decay) == (350, 0.1, 0.9999)


def test_paper_and_release_of_v2_s_differ_only_where_they_are_known_to():
    paper, release = load_recipe("v2-s.paper"), load_recipe("v2-s.release")
    differences = {
        f"{section.name}.{field.name}"
        for section in SECTIONS
        for field in fields(getattr(paper, section.name))
        if getattr(getattr(paper, section.name), field.name)
        != getattr(getattr(release, section.name), field.name)
    }
    assert differences == {
        "model.norm_momentum",
        "augment.policy",
        "progressive.size_rule",
        "progressive.randaugment_magnitude",
        "progressive.dropout_rate",
    }


@given(
    width=st.floats(1e-6, 1e6),
    weights=st.text(),
    area=st.floats(1e-6, 1.0),
    seed=st.integers(0, 2**63 - 1),
    activation=st.sampled_from([None, "relu", "mish"]),
)
def test_any_configuration_survives_toml(width, weights, area, seed, activation):
    config = Config(
        model=ModelConfig(width=width, weights=weights, activation=activation),
        data=DataConfig(crop_area=(area, 1.0)),
        train=TrainConfig(seed=seed),
    )
    assert config_from_toml(config_to_toml(config), "test") == config


def test_toml_holds_every_value_and_arrays_in_one_line():
    text = config_to_toml(
        resolve_config(None, ["progressive.image_size=[128, 300]", "model.weights=[a,\n b,]"])
    )
    assert "image_size = [128, 300]" in text
    assert tomllib.loads(text)["model"]["weights"] == "[a,\n b,]"
    given_sections = tomllib.loads(text)
    left_out = {
        f"{section.name}.{field.name}"
        for section in SECTIONS
        for field in fields(section.default)
        if field.name not in given_sections[section.name]
    }
    assert "preprocessing" not in given_sections
    assert left_out == {
        "model.activation",
        "model.padding",
        "model.norm_epsilon",
        "model.norm_momentum",
        "evaluate.image_size",
        "evaluate.crop_mode",
        "evaluate.interpolation",
    }


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=10", "train", "epochs", 10.0),
        ("train.batch_size = 32", "train", "batch_size", 32),
        ("optimizer.weight_decay=1e-4", "optimizer", "weight_decay", 1e-4),
        ("model.network=v2-s", "model", "network", "v2-s"),
        ('model.network="v2-s"', "model", "network", "v2-s"),
        ("model.network=nets/mine.json", "model", "network", "nets/mine.json"),
        ("model.weights=", "model", "weights", ""),
        ("model.weights=a=b", "model", "weights", "a=b"),
        ("progressive.image_size=[128,224]", "progressive", "image_size", (128, 224)),
        ("train.precision=fp32", "train", "precision", "fp32"),
        ("train.device=cuda:0", "train", "device", "cuda:0"),
        ("data.flip=false", "data", "flip", False),
        ("data={flip=false}", "data", "flip", False),
        ('data.source="photos"\nflip = false', "data", "source", '"photos"\nflip = false'),
    ],
)
def test_an_override_changes_one_value(override, section, key, value):
    base = load_recipe("demo")
    expected = replace(base, **{section: replace(getattr(base, section), **{key: value})})
    assert resolve_config("demo", [override]) == expected


def test_no_recipe_gives_the_defaults_and_later_overrides_win():
    assert resolve_config() == Config()
    assert resolve_config(None, ["train.epochs=1", "train.epochs=2"]).train.epochs == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=10", "unknown key 'train.epoch' in the overrides; did you mean 'train.epochs'?"),
        ("momentum=0", "unknown key 'momentum' in the overrides; did you mean 'optimizer.momentum'?"),
        ("epochs=10", "unknown key 'epochs' in the overrides; did you mean 'train.epochs'?"),
        (
            "train.momentum=0",
            "unknown key 'train.momentum' in the overrides; did you mean 'optimizer.momentum'?",
        ),
        ("train.epochs=ten", "the overrides: train.epochs must be a number, got 'ten'"),
        ("train.batch_size=0", "the overrides: train.batch_size must be at least 1, got 0"),
        ("train.batch_size=1.5", "the overrides: train.batch_size must be a whole number, got 1.5"),
        ("train.batch_size=true", "the overrides: train.batch_size must be a whole number, got true"),
        ("data.flip=1", "the overrides: data.flip must be true or false, got 1"),
        ("ema.decay=1", "the overrides: ema.decay must be below 1, got 1"),
        ("learning_rate.base=0", "the overrides: learning_rate.base must be above 0, got 0"),
        (
            "train.precision=bf61",
            "the overrides: train.precision must be one of auto, fp32, bf16, fp16, "
            "got 'bf61'; did you mean 'bf16'?",
        ),
        (
            "model.gradient_checkpointing=selectiv",
            "the overrides: model.gradient_checkpointing must be one of false, true, selective, got "
            "'selectiv'; did you mean 'selective'?",
        ),
        (
            "augment.policy=xyz",
            "the overrides: augment.policy must be one of release, paper, relative, got 'xyz'",
        ),
        (
            "data.crop_area=[0.5, 0.2]",
            "the overrides: in data, crop_area must satisfy 0 < smallest <= largest <= 1, got [0.5, 0.2]",
        ),
        ("data.crop_area=[0.5]", "the overrides: data.crop_area[1] is missing"),
        ("data.crop_area=0.5", "the overrides: data.crop_area must be a list, got 0.5"),
        ("train.epochs=2020-01-01", "the overrides: train.epochs must be a number, got '2020-01-01'"),
        ("train=3", "the overrides: train must be a section of keys and values, got 3"),
        ("train.epochs.x=3", "the overrides: train.epochs must be a number, got {'x': 3}"),
        (
            "train.epochs",
            "cannot understand 'train.epochs'; write section.key=value, such as train.epochs=10",
        ),
        (".epochs=1", "cannot understand '.epochs=1'; write section.key=value, such as train.epochs=10"),
    ],
)
def test_a_wrong_override_is_explained(override, message):
    with pytest.raises(UserError) as caught:
        resolve_config("demo", [override])
    assert str(caught.value) == message


def test_a_key_like_no_other_lists_what_is_allowed():
    with pytest.raises(UserError, match="unknown key 'zzz' in the overrides; allowed: model, data, augment"):
        resolve_config(None, ["zzz=1"])


def test_several_problems_are_counted():
    with pytest.raises(UserError, match=r"train\.epochs must be .* \(and 2 more problems\)"):
        resolve_config(None, ["train.epochs=0", "train.seed=x", "ema.x=1"])


def test_a_recipe_file_extends_files_and_shipped_recipes(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "base.toml").write_text('extends = "demo"\n[train]\nepochs = 3\nbatch_size = 8\n')
    (folder / "mine.toml").write_text('extends = "../base.toml"\n[train]\nepochs = 4\n')
    demo = load_recipe("demo")
    expected = replace(demo, train=replace(demo.train, epochs=4.0, batch_size=8))
    assert load_recipe(str(folder / "mine.toml")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\nepoch = 3\n",
            r"unknown key 'train\.epoch' in .*mine\.toml; did you mean 'train\.epochs'\?",
        ),
        ("[train\n", r"mine\.toml is not TOML: .*line 1"),
        ('extends = "v2-s"\n', r"unknown recipe 'v2-s'; did you mean 'v2-s\.\w+'\?"),
        ("extends = 3\n", r"mine\.toml: extends must be the name or path of one recipe, got 3"),
        ('extends = "gone.toml"\n', r"cannot read the recipe .*gone\.toml"),
        ('extends = "mine.toml"\n', r"recipes extend each other in a circle: .*mine\.toml -> .*mine\.toml"),
        ('extends = "../inner/mine.toml"\n', r"recipes extend each other in a circle"),
        ("", None),
    ],
)
def test_a_wrong_recipe_file_is_explained(tmp_path, text, message):
    path = tmp_path / "inner" / "mine.toml"
    path.parent.mkdir()
    path.write_text(text)
    if message is None:
        assert load_recipe(str(path)) == Config()
        return
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_suggests_one():
    for reader in (load_recipe, recipe_text, resolve_config):
        with pytest.raises(UserError, match=r"unknown recipe 'demoo'; did you mean 'demo'\? \(or give"):
            reader("demoo")


def test_configurations_of_runs_cannot_extend():
    with pytest.raises(UserError, match=r"unknown key 'extends' in config\.toml"):
        config_from_toml('extends = "demo"\n', "config.toml")


@pytest.mark.parametrize("name", recipe_names())
def test_the_summary_is_one_short_sentence(name):
    summary = recipe_summary(name)
    assert recipe_text(name).startswith(f"# {summary}")
    assert 20 < len(summary) < 110
    assert "\n" not in summary


def test_values_are_taken_as_they_are_and_overrides_win():
    values = {"data.source": "10", "model.width": 1.0, "train.epochs": 3}
    config = resolve_config("demo", ["train.epochs=4"], values=values)
    assert (config.data.source, config.model.width, config.train.epochs) == ("10", 1.0, 4.0)


def test_the_recipe_of_searches_takes_photos_of_any_size():
    assert not load_recipe("search").data.resident

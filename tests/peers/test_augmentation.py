"""The sub-policies of AutoAugment and the space of TrivialAugment, against other libraries' tables."""

import numpy as np
import pytest
import torch

from effnet.data.autoaugment import operation, sub_policies
from effnet.data.trivialaugment import STRENGTHS, WIDE

pytestmark = pytest.mark.peers

WITHOUT_STRENGTH = {"AutoContrast", "Equalize", "Invert"}


def test_table_9_is_torchvisions(torchvision):
    policy = torchvision.transforms.AutoAugmentPolicy.IMAGENET
    theirs = torchvision.transforms.AutoAugment(policy).policies
    ours = [
        tuple(
            (name, probability, None if name in WITHOUT_STRENGTH else level)
            for name, probability, level in row
        )
        for row in sub_policies("paper")
    ]
    assert ours == theirs


# timm's names; its translation is a share of the image, 0.45 at level 10, and not the release's 250 px.
RENAMED = {
    "release": {"PosterizeTpu": "Posterize", "TranslateYRel": "TranslateY"},
    "paper": {"PosterizeOriginal": "Posterize"},
}


@pytest.mark.parametrize(("policy", "name"), [("release", "v0"), ("paper", "original")])
def test_sub_policies_are_timms(timm, policy, name):
    module = timm.data.auto_augment
    theirs = module.auto_augment_policy(name, {"img_mean": (128, 128, 128), "magnitude_std": 0})
    rows = [
        tuple((RENAMED[policy].get(one.name, one.name), one.prob, one.magnitude) for one in row)
        for row in theirs
    ]
    assert rows == sub_policies(policy)


@pytest.mark.parametrize(("policy", "name"), [("release", "v0"), ("paper", "original")])
def test_levels_have_timms_arithmetic(timm, policy, name):
    module = timm.data.auto_augment
    compared = set()
    for row in module.auto_augment_policy(name, {"img_mean": (128, 128, 128), "magnitude_std": 0}):
        for one in row:
            ours = RENAMED[policy].get(one.name, one.name)
            if ours in WITHOUT_STRENGTH or ours == "TranslateY":
                continue
            argument = abs(one.level_fn(one.magnitude, one.kwargs)[0])
            assert abs(operation(policy, ours).argument(one.magnitude / 10, 1, 224)) == pytest.approx(
                argument
            )
            compared.add(ours)
    assert len(compared) >= 6


def test_trivialaugment_has_torchvisions_operations_and_ranges(torchvision):
    space = torchvision.transforms.TrivialAugmentWide()._augmentation_space(STRENGTHS)
    assert set(space) == set(WIDE)
    for name, (magnitudes, is_signed) in space.items():
        ours = np.array([WIDE[name].argument(level, 1, 224) for level in range(STRENGTHS)])
        theirs = magnitudes.numpy() if magnitudes.ndim else np.zeros(STRENGTHS)
        if name in {"Brightness", "Color", "Contrast", "Sharpness"}:
            # torchvision's go to 1 +- 0.99 and the paper's code from 0.01 to 2.
            assert is_signed
            assert ours[[0, -1]] == pytest.approx([1 - theirs[-1], 1 + theirs[-1]], abs=0.011)
        elif name == "Solarize":
            assert np.abs(ours - theirs).max() < 2  # From 256, whole levels; from 255.
        else:
            # The paper's code cuts fractions off where torchvision does so later or rounds.
            assert np.abs(ours - theirs).max() <= 1
    assert torch.is_tensor(space["Rotate"][0])

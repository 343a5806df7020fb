"""Every shipped recipe plans the published run: steps, sizes, regularization and learning rates.

The numbers are computed by hand from the papers, the released code and each recipe's text: a value for each
stage, or one for all of them; learning rates at the steps that a plan shows, which are the ends of the
warm-up, the middle, the beginnings of stages and the end. "Steps an epoch" are images over batch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from math import cos, pi
from typing import Any

import pytest

from effnet.cli.main import main
from effnet.recipes import load_recipe, recipe_names

Stages = tuple[float, ...] | float


@dataclass(frozen=True)
class Golden:
    """Of one recipe."""

    steps: int
    sizes: tuple[int, ...]
    rates: dict[int, float]
    randaugment: Stages = 0.0
    mixup: Stages = 0.0
    cutmix: Stages = 0.0
    dropout: Stages = 0.2
    drop_path: Stages = 0.2
    erasing: Stages = 0.0


# 350 epochs of 1,256,144 images, 4096 a step: 306.67578125 steps an epoch. 0.256 after 5 epochs; 0.97 of it
# every 2.4 epochs, or 736.021875 steps, from step 0.
IMAGENET_ENDS = {
    0: 0.0,
    1533: 0.256 * 1533 / 1533.37890625,
    1534: 0.256 * 0.97**2,
    53_668: 0.256 * 0.97**72,
    107_335: 0.256 * 0.97**145,
}
IMAGENET = IMAGENET_ENDS | {26_834: 0.256 * 0.97**36, 80_502: 0.256 * 0.97**109}

# 60 epochs of 12,720,275 images, 4096 a step: 3105.535888671875 steps an epoch. 0.128 after 1 epoch; a cosine
# over all 186,332 steps, so half of it in the middle.
IMAGENET_21K = {
    0: 0.0,
    3105: 0.128 * 3105 / 3105.535888671875,
    3106: 0.064 * (1 + cos(pi * 3106 / 186_332)),
    93_166: 0.064,
    186_331: 0.064 * (1 + cos(pi * 186_331 / 186_332)),
}

# 350 epochs of 1,281,167 images, 4096 a step: 312.784912109375 steps an epoch, 750.68 to each factor of 0.97.
IMAGENET_V1 = {
    0: 0.0,
    1563: 0.256 * 1563 / 1563.924560546875,
    1564: 0.256 * 0.97**2,
    54_737: 0.256 * 0.97**72,
    109_473: 0.256 * 0.97**145,
}

# 600 epochs of 1,281,167 images, 1024 a step: 1251.1396484375 steps an epoch. 0.5 after 5 epochs, a cosine
# over the 744,427.3 steps behind them.
WARM, REST = 6255.6982421875, 750_683 - 6255.6982421875
TORCHVISION = {
    0: 0.0,
    6255: 0.5 * 6255 / WARM,
    6256: 0.25 * (1 + cos(pi * (6256 - WARM) / REST)),
    375_341: 0.25 * (1 + cos(pi * (375_341 - WARM) / REST)),
    750_682: 0.25 * (1 + cos(pi * (750_682 - WARM) / REST)),
}

# 15 epochs of 1,256,144 images, 512 a step: 2453.40625 steps an epoch. 0.001 after 1 epoch.
FINETUNE = {0: 0.0, 2453: 0.001 * 2453 / 2453.40625, 2454: 0.001, 18_400: 0.001, 36_800: 0.001}
FINETUNE_PAPER = {
    0: 0.0,
    2453: 0.001 * 2453 / 2453.40625,
    2454: 0.0005 * (1 + cos(pi * 2454 / 36_801)),
    18_400: 0.0005 * (1 + cos(pi * 18_400 / 36_801)),
    36_800: 0.0005 * (1 + cos(pi * 36_800 / 36_801)),
}


def transfer(steps_an_epoch: float, warm: int) -> Golden:
    """Return 10,000 steps with a cosine; ``warm`` is the first step behind the first epoch."""
    rates = {
        0: 0.0,
        warm - 1: 0.001 * (warm - 1) / steps_an_epoch,
        warm: 0.0005 * (1 + cos(pi * warm / 10_000)),
        5000: 0.0005,
        9999: 0.0005 * (1 + cos(pi * 0.9999)),
    }
    return Golden(10_000, (384,), rates, dropout=1e-6)


V2_B01 = (144, 160, 176, 192)
V2_S = Golden(107_336, (171, 214, 257, 300), IMAGENET, (5, 20 / 3, 25 / 3, 10))
V2_M = Golden(
    107_336,
    (192, 256, 320, 384),
    IMAGENET,
    randaugment=(5, 25 / 3, 35 / 3, 15),
    mixup=(0, 0.2 / 3, 0.4 / 3, 0.2),
    cutmix=(0, 0.2 / 3, 0.4 / 3, 0.2),
    dropout=0.3,
)
V2_L = Golden(
    107_336,
    (192, 256, 320, 384),
    IMAGENET,
    (5, 10, 15, 20),
    (0, 1 / 6, 1 / 3, 0.5),
    (0, 1 / 6, 1 / 3, 0.5),
    0.4,
)
V2_L_PAPER = Golden(
    107_336,
    (128, 212, 296, 380),
    IMAGENET,
    randaugment=(5, 35 / 3, 55 / 3, 25),
    mixup=(0, 0.4 / 3, 0.8 / 3, 0.4),
    dropout=(0.1, 0.7 / 3, 1.1 / 3, 0.5),
)
V2_21K = Golden(186_332, (224,), IMAGENET_21K, dropout=1e-6, drop_path=0.0)

V2_S_PAPER = Golden(
    107_336, (128, 185, 242, 300), IMAGENET, (5, 25 / 3, 35 / 3, 15), dropout=(0.1, 0.5 / 3, 0.7 / 3, 0.3)
)
V1 = {
    "b0": Golden(109_474, (224,), IMAGENET_V1),
    "b1": Golden(109_474, (240,), IMAGENET_V1),
    "b2": Golden(109_474, (260,), IMAGENET_V1, dropout=0.3),
    "b3": Golden(109_474, (300,), IMAGENET_V1, dropout=0.3),
    "b4": Golden(109_474, (380,), IMAGENET_V1, dropout=0.4),
    "b5": Golden(109_474, (456,), IMAGENET_V1, dropout=0.4),
    "b6": Golden(109_474, (528,), IMAGENET_V1, dropout=0.5),
    "b7": Golden(109_474, (600,), IMAGENET_V1, dropout=0.5),
}
FT_SIZES = {"s": 384, "m": 480, "l": 480, "xl": 512}

GOLDEN: dict[str, Golden] = {
    "v2-b0.release": Golden(107_336, V2_B01, IMAGENET),
    "v2-b1.release": Golden(107_336, V2_B01, IMAGENET),
    "v2-b2.release": Golden(107_336, (148, 168, 188, 208), IMAGENET, dropout=0.3),
    "v2-b3.release": Golden(107_336, (156, 184, 212, 240), IMAGENET, dropout=0.3),
    "v2-s.release": V2_S,
    "v2-m.release": V2_M,
    "v2-l.release": V2_L,
    "v2-xl.release": V2_L,
    "v2-s.small-gpu": V2_S,
    "v2-m.small-gpu": V2_M,
    "v2-l.small-gpu": V2_L,
    "v2-s.paper": V2_S_PAPER,
    "v2-m.paper": Golden(
        107_336,
        (128, 212, 296, 380),
        IMAGENET,
        randaugment=(5, 10, 15, 20),
        mixup=(0, 0.2 / 3, 0.4 / 3, 0.2),
        dropout=(0.1, 0.2, 0.3, 0.4),
    ),
    "v2-l.paper": V2_L_PAPER,
    "v2-xl.paper": V2_L_PAPER,
    **{f"v2-{size}.{kind}": V2_21K for size in ("s", "m", "l", "xl") for kind in ("21k", "21k-sigmoid")},
    "v2-b0.paper": Golden(107_336, (192,), IMAGENET_ENDS),
    "v2-b1.paper": Golden(107_336, (192,), IMAGENET_ENDS),
    "v2-b2.paper": Golden(107_336, (208,), IMAGENET_ENDS, dropout=0.3),
    "v2-b3.paper": Golden(107_336, (240,), IMAGENET_ENDS, dropout=0.3),
    **{f"v1-{size}.release": golden for size, golden in V1.items()},
    "v1-b5.randaugment": replace(V1["b5"], randaugment=17),
    "v1-b7.randaugment": replace(V1["b7"], randaugment=28),
    "v2-s.torchvision": Golden(750_683, (300,), TORCHVISION, mixup=0.2, cutmix=1.0, erasing=0.1),
    "v2-m.torchvision": Golden(750_683, (384,), TORCHVISION, mixup=0.2, cutmix=1.0, erasing=0.1, dropout=0.3),
    **{f"v2-{n}.21k-ft1k": Golden(36_801, (px,), FINETUNE, dropout=1e-6) for n, px in FT_SIZES.items()},
    **{
        f"v2-{n}.21k-ft1k-paper": Golden(36_801, (px,), FINETUNE_PAPER, dropout=1e-6)
        for n, px in FT_SIZES.items()
    },
    # 512 images a step.
    "transfer-cifar10": transfer(97.65625, 98),
    "transfer-cifar100": transfer(97.65625, 98),
    "transfer-flowers102": transfer(3.984375, 4),
    "transfer-cars": transfer(15.90625, 16),
    "transfer-aircraft": transfer(13.021484375, 14),
    "transfer-pets": transfer(7.1875, 8),
    "transfer-food101": transfer(147.94921875, 148),
    "transfer-birdsnap": transfer(92.55078125, 93),
    "resnet50-224.table12": replace(V2_S_PAPER, sizes=(128, 160, 192, 224)),
    "resnet50.table12": replace(V2_S_PAPER, sizes=(128, 212, 296, 380)),
    "resnet152.table12": replace(V2_S_PAPER, sizes=(128, 212, 296, 380)),
    "v1-b4.table12": replace(V2_S_PAPER, sizes=(128, 212, 296, 380)),
    "v1-b5.table12": replace(V2_S_PAPER, sizes=(128, 237, 346, 456)),
    # 16 epochs of 10,000 images, 64 a step: 156.25 steps an epoch. 8e-3 after 1 epoch, a cosine.
    "ablation.small": Golden(
        2500,
        (16, 21, 26, 32),
        {
            0: 0.0,
            156: 8e-3 * 156 / 156.25,
            157: 4e-3 * (1 + cos(pi * 157 / 2500)),
            625: 4e-3 * (1 + 0.5**0.5),
            1250: 4e-3,
            1875: 4e-3 * (1 - 0.5**0.5),
        },
        randaugment=(0, 5 / 3, 10 / 3, 5),
        dropout=(0, 0.2 / 3, 0.4 / 3, 0.2),
        drop_path=(0, 0.05 / 3, 0.1 / 3, 0.05),
    ),
    # 40 epochs of 50,000 images, 128 a step: 390.625 steps an epoch. 4e-3 after 2 epochs, a cosine.
    "cifar10": Golden(
        15_625,
        (16, 20, 24, 32),
        {
            0: 0.0,
            781: 4e-3 * 781 / 781.25,
            782: 2e-3 * (1 + cos(pi * 782 / 15_625)),
            3906: 2e-3 * (1 + cos(pi * 3906 / 15_625)),
            7812: 2e-3 * (1 + cos(pi * 7812 / 15_625)),
            11_718: 2e-3 * (1 + cos(pi * 11_718 / 15_625)),
            15_624: 2e-3 * (1 + cos(pi * 15_624 / 15_625)),
        },
        randaugment=(2, 10 / 3, 14 / 3, 6),
        mixup=(0, 0.2 / 3, 0.4 / 3, 0.2),
        dropout=(0, 0.2 / 3, 0.4 / 3, 0.2),
        drop_path=(0, 0.1 / 3, 0.2 / 3, 0.1),
    ),
    # 48 epochs of 1438 digits, 64 a step: 22.46875 steps an epoch. 0.02 after 2 epochs, a cosine.
    "demo": Golden(
        1078,
        (40, 52, 64),
        {
            0: 0.0,
            44: 0.02 * 44 / 44.9375,
            45: 0.01 * (1 + cos(pi * 45 / 1078)),
            539: 0.01,
            718: 0.01 * (1 + cos(pi * 718 / 1078)),
        },
        randaugment=(0, 1.5, 3),
        dropout=(0, 0.05, 0.1),
        drop_path=(0, 0.025, 0.05),
    ),
    # As if of 960 images, see the test: 30 steps an epoch, 2e-3 after 0.3 epochs, a cosine.
    "finetune": Golden(
        180,
        (192,),
        {0: 0.0, 8: 2e-3 * 8 / 9, 9: 1e-3 * (1 + cos(pi * 0.05)), 90: 1e-3},
        randaugment=5,
        drop_path=0.1,
    ),
    # 3 epochs of 10,000 images, 64 a step: 156.25 steps an epoch. 8e-3 after 0.3 epochs, a cosine.
    "search": Golden(
        468,
        (32,),
        {
            0: 0.0,
            46: 8e-3 * 46 / 46.875,
            47: 4e-3 * (1 + cos(pi * 47 / 468)),
            234: 4e-3,
            467: 4e-3 * (1 + cos(pi * 467 / 468)),
        },
        dropout=0.0,
        drop_path=0.0,
    ),
    # As if of 960 images: 15 steps an epoch, 1e-3 after 5 epochs, a cosine.
    "scratch": Golden(
        1500,
        (128, 144, 168, 192),
        {
            0: 0.0,
            74: 1e-3 * 74 / 75,
            75: 5e-4 * (1 + cos(pi * 0.05)),
            375: 5e-4 * (1 + 0.5**0.5),
            750: 5e-4,
            1125: 5e-4 * (1 - 0.5**0.5),
        },
        randaugment=(3, 5, 7, 9),
        mixup=(0, 0.2 / 3, 0.4 / 3, 0.2),
        dropout=(0.1, 0.5 / 3, 0.7 / 3, 0.3),
        drop_path=(0, 0.1 / 3, 0.2 / 3, 0.1),
    ),
}

# Where a recipe has no size of its data, a plan is of so many images.
IMAGES = 960

NAMES = {
    "image_size": "sizes",
    "randaugment_magnitude": "randaugment",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "dropout_rate": "dropout",
    "drop_path_rate": "drop_path",
    "erasing_probability": "erasing",
}


def plan(recipe: str, capsys, monkeypatch) -> dict[str, Any]:
    """Return what ``effnet plan --recipe R --json`` prints; no data are there."""
    arguments = ["effnet", "plan", "--recipe", recipe, "--json"]
    if not load_recipe(recipe).data.train_images:
        images = 1438 if recipe == "demo" else IMAGES
        arguments += ["--set", f"data.train_images={images}"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with pytest.raises(SystemExit) as exit_request:
        main()
    assert not exit_request.value.code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_every_shipped_recipe_has_golden_numbers():
    assert sorted(GOLDEN) == recipe_names()


@pytest.mark.parametrize("recipe", sorted(GOLDEN))
def test_a_plan_has_the_numbers_computed_by_hand(recipe, capsys, monkeypatch, fake_timm):
    golden, document = GOLDEN[recipe], plan(recipe, capsys, monkeypatch)
    assert document["total_steps"] == golden.steps
    assert len(document["stages"]) == len(golden.sizes)
    for name, short in NAMES.items():
        values = getattr(golden, short)
        expected = values if isinstance(values, tuple) else [values] * len(golden.sizes)
        planned = [stage[name] for stage in document["stages"]]
        assert planned == pytest.approx(list(expected), rel=1e-12, abs=1e-15), name
    rates = {point["step"]: point["learning_rate"] for point in document["at"]}
    assert {step: rates[step] for step in golden.rates} == pytest.approx(golden.rates, rel=1e-9, abs=1e-15)
    # Each stage but those that a plan of many would leave out begins at a step whose rate is known.
    assert {stage["start_step"] for stage in document["stages"]} <= set(rates)


def test_the_rates_are_those_of_the_published_facts():
    # 0.256 at the end of the warm-up, 0.2409 behind it, 0.0031 at the end.
    assert max(IMAGENET.values()) == pytest.approx(0.256, abs=1e-4)
    assert IMAGENET[1534] == pytest.approx(0.2409, abs=5e-5)
    assert IMAGENET[107_335] == pytest.approx(0.0031, abs=5e-5)

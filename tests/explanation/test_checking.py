import math
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch

from effnet.arch import network, released_preprocessing
from effnet.data.loader import prepare_images
from effnet.data.reading import read_file
from effnet.data.transforms import eval_image
from effnet.explanation import heat_maps
from effnet.explanation.checking import Match, Score, play_matches, play_random, verdict_of
from effnet.nn import build_model
from effnet.weights import load_weights

SHARED = Path(__file__).parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "efficientnetv2-b0-imagenet1k.keras-names.safetensors"
DAISY = 985
"""Of ImageNet-1k."""


def _match(deletion: float, insertion: float) -> Match:
    return Match(
        own=Score(deletion=deletion, insertion=insertion),
        random=Score(deletion=0.5, insertion=0.4),
        other=Score(deletion=0.45, insertion=0.45),
    )


def test_a_verdict_sums_up_the_images():
    verdict = verdict_of([_match(0.2, 0.6), _match(0.3, 0.7), _match(0.1, 0.65)])
    assert verdict.images == 3
    assert verdict.own.deletion == pytest.approx(0.2)
    assert verdict.random.insertion == pytest.approx(0.4)
    assert verdict.other.deletion == pytest.approx(0.45)
    assert verdict.deletion_gain == pytest.approx(0.3)
    assert verdict.deletion_error == pytest.approx(stdev([0.3, 0.2, 0.4]) / math.sqrt(3))
    assert verdict.insertion_gain == pytest.approx(0.25)
    assert verdict.is_passed
    assert verdict.to_dict()["deletion"].keys() == {"map", "random", "other_image", "gain", "gain_error"}


@pytest.mark.parametrize(
    "matches",
    [
        [(0.1, 0.9)],
        [(0.5, 0.9), (0.51, 0.9)],
        [(0.1, 0.4), (0.1, 0.39)],
        [(0.3, 0.9), (0.55, 0.9)],
        [(0.1, 0.8), (0.1, 0.38)],
    ],
)
def test_what_may_be_chance_does_not_pass(matches):
    assert not verdict_of([_match(*areas) for areas in matches]).is_passed


def test_maps_of_a_network_whose_evidence_is_known_pass(spotter):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.zeros(6, 3, 32, 32)
    for image in pixels:
        top, left = torch.randint(2, 22, (2,), generator=generator).tolist()
        image[0, top : top + 8, left : left + 8] = 1.0
        image[1:, top : top + 8, left : left + 8] = -1.0
    labels = torch.full((6,), 1)
    heat = heat_maps(spotter, pixels, labels, "cam")
    random = play_random(spotter, pixels, labels, 8)
    verdict = verdict_of(play_matches(spotter, pixels, labels, heat, random))
    assert verdict.is_passed
    assert verdict.own.deletion < verdict.other.deletion
    assert verdict.own.insertion > verdict.other.insertion
    # The same game with maps that know nothing is lost, or at least not won.
    unknowing = torch.rand(6, 32, 32, generator=generator)
    assert not verdict_of(play_matches(spotter, pixels, labels, unknowing, random)).is_passed


def test_a_single_image_has_no_other_image(spotter, spotted):
    label = torch.tensor([1])
    random = play_random(spotter, spotted, label, 8, steps=2)
    (match,) = play_matches(spotter, spotted, label, torch.rand(1, 32, 32), random, steps=2)
    assert match.other is None
    assert "other_image" not in verdict_of([match]).to_dict()["insertion"]


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the ImageNet weights are not beside this checkout")
def test_maps_of_the_real_network_pass_on_daisies():
    spec = network("v2-b0")
    model = build_model(spec, weights=load_weights(str(WEIGHTS), spec)).eval()
    paths = sorted((SHARED / "data" / "flower_photos" / "val" / "daisy").iterdir())[:3]
    preprocessing = released_preprocessing(spec)
    views = np.stack([eval_image(read_file(path), preprocessing) for path in paths])
    pixels = prepare_images(torch.from_numpy(views), preprocessing, torch.device("cpu"))[:, :, ::2, ::2]
    labels = torch.full((len(paths),), DAISY)
    random = play_random(model, pixels, labels, 4, steps=4)
    verdict = verdict_of(
        play_matches(model, pixels, labels, heat_maps(model, pixels, labels, "cam"), random, steps=4)
    )
    assert verdict.deletion_gain > 0
    assert verdict.insertion_gain > 0

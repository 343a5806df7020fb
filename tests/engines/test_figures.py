import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.engines.figures import Figures, fastest_for, fastest_served, gain, measuring_pays

FIGURES = {
    "eager": Figures(start=0.0, one=0.020, many=0.010),
    "onnx": Figures(start=0.5, one=0.010, many=0.008),
    "openvino": Figures(start=2.0, one=0.012, many=0.006),
}


@pytest.mark.parametrize(
    ("images", "engine"), [(1, "eager"), (240, "eager"), (400, "onnx"), (700, "onnx"), (5000, "openvino")]
)
def test_what_takes_long_to_start_is_for_many_images(images, engine):
    assert fastest_for(FIGURES, images) == engine


def test_a_service_may_have_one_engine_for_single_images_and_another_for_batches():
    assert fastest_served(FIGURES) == ("onnx", "openvino")


def test_a_little_faster_is_not_worth_another_engine():
    close = FIGURES | {"onnx": Figures(start=0.0, one=0.0195, many=0.0096)}
    del close["openvino"]
    assert fastest_served(close) == ("eager", "eager")
    assert fastest_for(close, 10**6) == "eager"


@given(st.integers(1, 10**7))
def test_the_choice_never_takes_longer_than_pytorch(images):
    chosen = FIGURES[fastest_for(FIGURES, images)]
    assert chosen.start + images * chosen.many <= images * FIGURES["eager"].many


def test_measuring_pays_where_pytorch_would_compute_for_minutes():
    assert not measuring_pays(1, 1.0)
    assert not measuring_pays(1000, 0.1)
    assert measuring_pays(1201, 0.1)


def test_the_gain_is_a_ratio_to_pytorch():
    assert gain(FIGURES, "onnx", "one") == pytest.approx(2.0)
    assert gain(FIGURES, "openvino", "many") == pytest.approx(1 / 0.6)
    assert gain(FIGURES, "eager", "many") == 1.0

import pytest

from effnet.errors import UserError
from effnet.explanation.methods import LAYER_METHODS, METHODS, methods_named


def test_methods_are_named_in_a_list():
    assert methods_named("cam") == ("cam",)
    assert methods_named("occlusion, cam,occlusion") == ("occlusion", "cam")
    assert methods_named("all") == METHODS
    assert set(METHODS) > LAYER_METHODS


def test_an_unknown_method_has_a_neighbour():
    with pytest.raises(UserError, match="unknown method 'gradcam'; did you mean 'grad-cam'"):
        methods_named("cam,gradcam")

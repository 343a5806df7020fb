from dataclasses import replace

import torch

from effnet.nn import build_model
from effnet.weights.adapt import fit_state, fit_stem


def states(spec, **changes):
    loaded = build_model(spec).state_dict()
    fresh = build_model(replace(spec, **changes)).state_dict()
    return loaded, fresh


def test_the_same_number_of_unnamed_classes_keeps_the_classifier(tiny):
    loaded, fresh = states(tiny)
    for names in ((None, None), (list("abcdefg"), None), (None, list("abcdefg"))):
        fitted = fit_state(loaded, fresh, class_names=names[0], new_class_names=names[1])
        assert torch.equal(fitted["classifier.weight"], loaded["classifier.weight"])


def test_another_number_of_classes_gets_a_fresh_classifier_and_keeps_the_rest(tiny):
    loaded, fresh = states(tiny, num_classes=3)
    fitted = fit_state(loaded, fresh)
    for name, tensor in fitted.items():
        assert torch.equal(tensor, (fresh if name.startswith("classifier") else loaded)[name]), name


def test_rows_of_shared_class_names_are_kept(tiny):
    loaded, fresh = states(tiny, num_classes=3)
    loaded["classifier.bias"] = torch.arange(7.0)
    fitted = fit_state(loaded, fresh, class_names=list("abcdefg"), new_class_names=["f", "new", "b"])
    assert torch.equal(fitted["classifier.weight"][0], loaded["classifier.weight"][5])
    assert torch.equal(fitted["classifier.weight"][1], fresh["classifier.weight"][1])
    assert torch.equal(fitted["classifier.weight"][2], loaded["classifier.weight"][1])
    assert torch.equal(fitted["classifier.bias"], torch.tensor([5.0, 0.0, 1.0]))


def test_the_same_names_in_another_order_are_reordered(tiny):
    loaded, fresh = states(tiny)
    fitted = fit_state(loaded, fresh, class_names=list("abcdefg"), new_class_names=list("gfedcba"))
    assert torch.equal(fitted["classifier.weight"], loaded["classifier.weight"].flip(0))


def test_fitting_leaves_both_inputs_unharmed(tiny):
    loaded, fresh = states(tiny, num_classes=3, in_channels=1)
    before = {name: tensor.clone() for name, tensor in fresh.items()}
    fit_state(loaded, fresh, class_names=list("abcdefg"), new_class_names=list("abc"))
    assert all(torch.equal(fresh[name], tensor) for name, tensor in before.items())
    assert loaded["stem.conv.weight"].shape[1] == 3


def test_a_grey_image_gives_what_its_three_copies_gave(tiny):
    loaded, fresh = states(tiny, in_channels=1)
    colour, grey = build_model(tiny).eval(), build_model(replace(tiny, in_channels=1)).eval()
    colour.load_state_dict(loaded)
    grey.load_state_dict(fit_state(loaded, fresh))
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(grey(image), colour(image.expand(1, 3, 32, 32)))


def test_more_channels_repeat_in_turn_and_are_rescaled():
    kernel = torch.randn(8, 3, 3, 3)
    wide = fit_stem(kernel, 5)
    assert torch.equal(wide, torch.cat([kernel, kernel[:, :2]], dim=1) * (3 / 5))
    assert torch.equal(fit_stem(kernel, 2), kernel[:, :2] * 1.5)
    constant = torch.ones(1, 1, 3, 3)
    torch.testing.assert_close(
        (fit_stem(kernel, 6) * constant).sum((1, 2, 3)), (kernel * constant).sum((1, 2, 3))
    )

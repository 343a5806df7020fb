from dataclasses import replace

import numpy as np
import pytest
import torch

from effnet.arch import family
from effnet.nn import EfficientNet
from effnet.weights import load_weights
from effnet.weights.convert import export_state, import_state

pytestmark = [
    pytest.mark.peers,
    # Keras' own, of its PyTorch backend with NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

SIZE = 75  # 75, 38, 19, 10, 5, 3: odd and even maps before a stride
V1 = [f"v1-b{number}" for number in range(8)]
V2 = ["v2-b0", "v2-b1", "v2-b2", "v2-b3", "v2-s", "v2-m", "v2-l"]


def create(keras, name):
    version, variant = name.upper().split("-")
    architecture = getattr(keras.applications, f"EfficientNet{'V2' if version == 'V2' else ''}{variant}")
    arguments = {
        "weights": None,
        "classes": 11,
        "classifier_activation": None,
        "input_shape": (SIZE, SIZE, 3),
    }
    # V1 always divides by 255, and its normalisation is neutral until it has weights.
    return architecture(**arguments, **({"include_preprocessing": False} if version == "V2" else {}))


def variables(model):
    return {
        variable.path: variable for variable in model.weights if not variable.path.startswith("normalization")
    }


def fill(model, state, spec):
    theirs = variables(model)
    exported = export_state(state, spec, "keras")
    assert theirs.keys() == exported.keys()
    for name, tensor in exported.items():
        theirs[name].assign(tensor.numpy())


def logits_of(keras, model, images, name):
    pixels = images.permute(0, 2, 3, 1).numpy() * (255 if name in V1 else 1)
    return keras.ops.convert_to_numpy(model(pixels, training=False))


@pytest.mark.parametrize("name", [*V1, *V2])
def test_the_same_weights_give_the_same_logits_both_ways(name, keras, make_network):
    spec = replace(family.network(name), num_classes=11)
    ours, theirs = make_network(spec), create(keras, name)
    fill(theirs, ours.state_dict(), spec)
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = ours(images).numpy(), logits_of(keras, theirs, images, name)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4
    held = {path: torch.from_numpy(keras.ops.convert_to_numpy(v)) for path, v in variables(theirs).items()}
    back = import_state(held, spec)
    for key, tensor in ours.state_dict().items():
        assert torch.equal(back[key], tensor) or key.endswith("num_batches_tracked"), key


@pytest.mark.parametrize("name", ["v1-b0", "v2-b0"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_saved_hdf5_file_loads(name, keras, make_network, tmp_path):
    pytest.importorskip("h5py", reason="h5py is in the extra 'keras'")
    spec = replace(family.network(name), num_classes=11)
    model = create(keras, name)
    fill(model, make_network(spec).state_dict(), spec)
    model.save(tmp_path / "x.h5")
    loaded = load_weights(str(tmp_path / "x.h5"), family.network(name))
    ours = EfficientNet(loaded.spec).eval()
    ours.load_state_dict(loaded.state)
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = ours(images).numpy(), logits_of(keras, model, images, name)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4

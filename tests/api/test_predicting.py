import pytest
import torch

from effnet.api import predict_to_file
from effnet.arch import Preprocessing
from effnet.data.listing import images_at
from effnet.errors import UserError
from effnet.evaluation.predictor import Predictor


def _stop(*_):
    raise KeyboardInterrupt


@pytest.fixture
def network(tmp_path):
    """A file of an exported network, and its weights beside it."""
    (tmp_path / "network.xml").write_text("layers")
    (tmp_path / "network.bin").write_text("weights")
    return tmp_path / "network.xml"


@pytest.fixture
def write(network, tmp_path):
    """Write the answers of something that is no network of ours, as `effnet.api.load` gives it."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_text("no image")
    predictor = Predictor(lambda pixels: pixels.mean((2, 3)), ("a", "b", "c"), Preprocessing(image_size=8))
    assert predictor.device == torch.device("cpu")

    def write(report=None):
        images = images_at([tmp_path / "photos"])
        return predict_to_file(predictor, network, images, tmp_path / "answers.csv", report=report)

    return write


@pytest.mark.parametrize("name", ["network.xml", "network.bin"])
def test_an_exported_network_is_another_one_when_one_of_its_files_is(write, network, name):
    with pytest.raises(KeyboardInterrupt):
        write(_stop)
    network.with_name(name).write_text("other")
    with pytest.raises(UserError, match="begun with other network"):
        write()


def test_an_exported_network_continues_its_file(write):
    with pytest.raises(KeyboardInterrupt):
        write(_stop)
    written = write()
    assert (written.images, written.bad) == (1, 1)
    assert written.path.read_text().splitlines()[1].endswith("1.png,not an image of a known format,,,,,,")

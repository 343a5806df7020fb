import socket

import pytest

from effnet.config.serve import ServeConfig
from effnet.errors import UserError
from effnet.serving.server import names_of, serve


def test_an_address_that_is_taken_is_told(predictor):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=f"cannot listen at 127.0.0.1 port {port}: Address already in use; cho"
        ):
            serve([("tiny", predictor)], ServeConfig(port=port))


def test_an_address_of_another_machine_is_told(predictor):
    with pytest.raises(UserError, match=r"cannot listen at 192\.0\.2\.1 port 0: .*; choose others"):
        serve([("tiny", predictor)], ServeConfig(host="192.0.2.1", port=0))


def test_networks_have_short_names_that_differ(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    sources = ["runs/a", str(tmp_path / "net.onnx"), "other/a", "timm/efficientnet_b0.ra_in1k", "a"]
    assert names_of(sources) == ["a", "net", "a~2", "efficientnet_b0.ra_in1k", "a~3"]

"""The service as a process of its own: signals, slow clients, and heads that never end."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from effnet.weights import save_weights


@pytest.fixture(scope="module")
def weights(predictor, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(
        path,
        predictor.model.state_dict(),
        predictor.model.spec,
        class_names=predictor.class_names,
        preprocessing=predictor.preprocessing,
        provenance="test",
    )
    return path


class Process:
    """``effnet serve``, ready, and what it says."""

    def __init__(self, weights: Path, *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "effnet",
            "serve",
            str(weights),
            "--port",
            "0",
            "--engine",
            "eager",
            *options,
        ]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "EFFNET_TOKEN": ""},
        )
        assert self.process.stderr.readline() == "tiny: engine eager: as asked for\n"
        self.greeting = self.process.stderr.readline()
        self.address = re.search(r"http://\S+:\d+", self.greeting)[0]
        while httpx2.get(self.address + "/readyz").status_code != 200:
            time.sleep(0.02)

    def connect(self) -> socket.socket:
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=20)

    def stop(self) -> tuple[int, str, str]:
        """Return the exit code and the rest of what it says."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def strict(weights) -> Iterator[Process]:
    """A service that has little patience and room."""
    service = Process(weights, "--timeout", "1", "--max-megapixels", "1")
    yield service
    assert service.stop() == (0, "", "stopped; every request that was accepted has been answered\n")


def everything(connection: socket.socket) -> bytes:
    """Return what arrives until the other side closes, and close as well."""
    parts = []
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_service_that_is_told_to_stop_answers_what_it_has_accepted(weights, photo):
    service = Process(weights, "--max-batch", "1", "--access-log")
    files = [("images", (f"{number}.jpg", photo(number, size=(400, 400)))) for number in range(32)]
    statuses = []

    def ask():
        answer = httpx2.post(service.address + "/v1/predict", files=files, timeout=60)
        statuses.append((answer.status_code, len(answer.json()["results"])))

    clients = [threading.Thread(target=ask) for _ in range(6)]
    for client in clients:
        client.start()
    while "effnet_images_in_service 0.0" in httpx2.get(service.address + "/metrics").text:
        time.sleep(0.005)
    code, out, err = service.stop()
    for client in clients:
        client.join()
    assert statuses == [(200, 32)] * 6
    assert (code, err) == (0, "stopped; every request that was accepted has been answered\n")
    lines = [json.loads(line) for line in out.splitlines()]
    assert sum(line["path"] == "/v1/predict" for line in lines) == 6
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(service.address + "/healthz")


def test_clients_that_are_slow_or_never_stop_are_told_so(strict, photo):
    slow_head, slow_body, endless_head, silent, garbage, late_body = (strict.connect() for _ in range(6))
    post = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    slow_head.sendall(b"POST /v1/predict HT")
    slow_body.sendall(post + b"Content-Length: 100\r\n\r\n{")
    endless_head.sendall(post + b"X: " + b"x" * 200_000)
    garbage.sendall(bytes(range(256)))
    late_body.sendall(post + b"Content-Length: 99999999\r\n\r\n{")
    assert everything(slow_head).startswith(b"HTTP/1.1 408 ")
    assert everything(slow_body).startswith(b"HTTP/1.1 408 ")
    assert everything(endless_head).startswith(b"HTTP/1.1 431 ")
    assert everything(garbage).startswith(b"HTTP/1.1 400 ")
    assert everything(silent) == b""
    assert everything(late_body).startswith(b"HTTP/1.1 413 ")
    # Nobody else has noticed.
    answer = httpx2.post(strict.address + "/v1/predict", files=[("images", ("a.jpg", photo()))])
    assert answer.status_code == 200


def ask_on_and_on(connection: socket.socket) -> None:
    """Ask and never read, until the other side stops reading as well and then has had enough."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


def test_a_client_that_does_not_read_is_let_go(strict):
    with strict.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.1)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ask_on_and_on(connection)


@pytest.fixture
def hostile(monkeypatch):
    """The benchmark of the same purpose."""
    path = Path(__file__).parents[2] / "benchmarks" / "serve_hostile.py"
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location("serve_hostile", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hostile_requests_are_refused_and_leave_nothing_behind(strict, photo, hostile):
    attacks = list(itertools.islice(hostile.attacks(photo(), 0, bomb_side=1500), 60))
    assert {"slow head", "decompression bomb", "body of 50 MB"} <= {kind for kind, _ in attacks}
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda attack: hostile.attack(strict.address, attack[1]), attacks))
    wrong = [(kind, status) for (kind, _), status in zip(attacks, statuses, strict=True) if status[:1] != "4"]
    assert wrong == []
    metrics = httpx2.get(strict.address + "/metrics").text
    assert "effnet_images_in_service 0.0" in metrics
    assert "effnet_requests_in_flight 1.0" in metrics
    answer = httpx2.post(strict.address + "/v1/predict", files=[("images", ("a.jpg", photo()))])
    assert answer.status_code == 200

"""Attack a service from another process: each request must get a status of 4xx, and leave nothing behind.

    python benchmarks/serve_hostile.py RUN PHOTO [--requests 1000] [--seed 0] [--out FILE]

Kinds take turns: random bytes, truncated and damaged photos, decompression bombs, bodies of 50 MB with and
without a length, wrong types, wrong JSON, wrong forms, broken HTTP, endless heads, slow clients. Good
requests come meanwhile, and must all be answered. Memory is read before, after a fifth, three fifths, and
all of the requests; the last line is one JSON document.
"""

from __future__ import annotations

import argparse
import base64
import collections
import concurrent.futures
import contextlib
import json
import random
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from serving_process import ServingProcess, served

Request = Callable[[socket.socket], None]

BOUNDARY = b"effnet-benchmark"
TIMEOUT_S = 2


def png_bomb(side: int, *, announced: int | None = None) -> bytes:
    """Return a PNG file of few bytes and many black pixels; its header may announce another size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = announced or side
    compressor, rows = zlib.compressobj(1), []
    for _ in range(side):
        rows.append(compressor.compress(bytes(1 + 3 * side)))
    rows.append(compressor.flush())
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def form(*files: bytes, field: bytes = b"images") -> bytes:
    """Return files as the body of a form."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\n\r\n%s\r\n'
        % (BOUNDARY, field, file)
        for file in files
    ]
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY


def post(body: bytes, kind: bytes = b"multipart/form-data; boundary=" + BOUNDARY) -> Request:
    """Send a body at once."""

    def send(connection: socket.socket) -> None:
        connection.sendall(_head(kind, b"Content-Length: %d" % len(body)) + body)

    return send


def post_json(document: object) -> Request:
    """Send a document as JSON."""
    return post(json.dumps(document).encode(), b"application/json")


def post_chunks(count: int, size: int) -> Request:
    """Send a body that does not say how long it is."""

    def send(connection: socket.socket) -> None:
        connection.sendall(_head(b"application/json", b"Transfer-Encoding: chunked"))
        for _ in range(count):
            connection.sendall(b"%x\r\n" % size + bytes(size) + b"\r\n")
        connection.sendall(b"0\r\n\r\n")

    return send


def slowly(data: bytes, pause_s: float) -> Request:
    """Send a byte at a time, until the other side has had enough."""

    def send(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes((byte,)))
            time.sleep(pause_s)

    return send


def raw(data: bytes) -> Request:
    """Send bytes as they are."""
    return lambda connection: connection.sendall(data)


def _head(kind: bytes, *lines: bytes) -> bytes:
    first = (b"POST /v1/predict HTTP/1.1", b"Host: x", b"Connection: close", b"Content-Type: " + kind)
    return b"\r\n".join((*first, *lines, b"", b""))


def attacks(photo: bytes, seed: int, *, bomb_side: int = 9000) -> Iterator[tuple[str, Request]]:
    """Yield requests without end, each kind in its turn; a bomb must have more pixels than are accepted."""
    rng = random.Random(seed)
    bomb, liar, empty = (
        png_bomb(bomb_side),
        png_bomb(64, announced=40_000),
        png_bomb(64, announced=bomb_side // 2),
    )
    huge = form(bytes(50 * 10**6))
    text = base64.b64encode(photo).decode()
    while True:
        damaged = bytearray(photo)
        for _ in range(20):
            damaged[rng.randrange(2, 600)] = rng.randrange(256)
        yield "random bytes", post(form(rng.randbytes(rng.randrange(1, 100_000))))
        yield (
            "random bytes behind a magic number",
            post(
                form(
                    rng.choice((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"))
                    + rng.randbytes(5000)
                )
            ),
        )
        yield "truncated photo", post(form(photo[: rng.randrange(1, len(photo) * 9 // 10)]))
        yield "photo with a damaged head", post(form(bytes(damaged[:3000])))
        yield "empty file", post(form(b""))
        yield "decompression bomb", post(form(bomb))
        yield "PNG that lies about its size", post(form(liar))
        yield "PNG that lacks most of its pixels", post(form(empty))
        yield "too many images", post(form(*[b"x"] * 50))
        yield "no file", post(b"--%s--\r\n" % BOUNDARY)
        yield "form that breaks off", post(form(photo)[: -len(BOUNDARY) - 20])
        yield "file of another name", post(form(photo, field=b"picture"))
        yield "random bytes as a form", post(rng.randbytes(2000))
        yield "form without a boundary", post(form(photo), b"multipart/form-data")
        yield (
            "wrong type",
            post(photo, rng.choice((b"image/jpeg", b"text/plain", b"", b"application/x-pickle"))),
        )
        yield "random bytes as JSON", post(rng.randbytes(2000), b"application/json")
        yield "deep JSON", post(b"[" * 100_000, b"application/json")
        yield "JSON without images", post_json({"top": 3})
        yield (
            "wrong values in JSON",
            post_json(
                {
                    "images": [text],
                    "top": rng.choice((0, -1, 1e9, "x", None, [], True)),
                    "cam": rng.choice(("x", 3)),
                }
            ),
        )
        yield "path for an image", post_json({"images": [rng.choice(("/etc/passwd", "file:///etc/passwd"))]})
        yield "address for an image", post_json({"images": ["http://127.0.0.1:1/x.jpg"]})
        yield "unknown network", post_json({"images": [text], "model": "../../etc/passwd"})
        yield "broken HTTP", raw(rng.randbytes(300) + b"\r\n\r\n")
        yield "endless head", raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
        yield "wrong method", raw(b"DELETE /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        yield "wrong address", raw(b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if rng.random() < 0.2:
            yield "body of 50 MB", post(huge)
            yield "body of 50 MB without a length", post_chunks(500, 100_000)
        yield "slow head", slowly(b"POST /v1/predict HTTP/1.1\r\nHost: " + b"x" * 1000, 0.05)
        yield "slow body", _slow_body()


def _slow_body() -> Request:
    def send(connection: socket.socket) -> None:
        connection.sendall(_head(b"application/json", b"Content-Length: 1000"))
        slowly(b" " * 1000, 0.05)(connection)

    return send


def attack(address: str, request: Request) -> str:
    """Send a request and return the status of its response, or what there is instead."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It was refused before its end.
            request(connection)
        answer = b""
        try:
            while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
                answer += part
        except (ConnectionResetError, TimeoutError) as error:
            if not answer:
                return type(error).__name__
    found = re.match(rb"HTTP/1.1 (\d{3}) ", answer)
    return found[1].decode() if found else "closed without a response"


def good_request(service: ServingProcess, photo: bytes) -> str:
    """Ask as a client does that means well."""
    return attack(service.address, post(form(photo)))


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    photo = arguments.photo.read_bytes()
    statuses: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    good: collections.Counter[str] = collections.Counter()
    memory = []
    with served([arguments.source], "--timeout", str(TIMEOUT_S)) as service:
        stream = attacks(photo, arguments.seed)
        good[good_request(service, photo)] += 1
        memory.append(round(service.memory_mib(), 1))
        with concurrent.futures.ThreadPoolExecutor(arguments.clients) as pool:
            for count in (arguments.requests // 5, arguments.requests * 2 // 5, arguments.requests * 2 // 5):
                kinds = [next(stream) for _ in range(count)]
                asked = [pool.submit(attack, service.address, request) for _, request in kinds]
                for _ in range(max(count // 40, 1)):
                    good[good_request(service, photo)] += 1
                for (kind, _), answer in zip(kinds, asked, strict=True):
                    statuses[kind][answer.result()] += 1
                good[good_request(service, photo)] += 1
                memory.append(round(service.memory_mib(), 1))
                print(f"{sum(map(collections.Counter.total, statuses.values()))} requests, {memory[-1]} MiB")
        alive = json.loads(service.get("/healthz"))["status"] == "alive"
        metrics = service.get("/metrics")
        left = {
            name: float(re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)[1])
            for name in ("effnet_queue_images", "effnet_images_in_service")
        }
    for kind, counts in sorted(statuses.items()):
        print(f"{kind:36} {dict(counts)}")
    print(f"{'good requests meanwhile':36} {dict(good)}")
    wrong = sum(
        count
        for counts in statuses.values()
        for status, count in counts.items()
        if not status.startswith("4")
    )
    document = {
        "requests": sum(map(collections.Counter.total, statuses.values())),
        "not_4xx": wrong,
        "good": good,
        "memory_mib": memory,
        "alive": alive,
        "left": left,
        "statuses": statuses,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()

"""Load a service from another process: requests a second, latency, processor time and errors.

    python benchmarks/serve_load.py RUN PHOTOS [--clients 1 8 64] [--seconds 10] [--rounds 2] [--out FILE]

Each request is one photo of a folder as multipart/form-data, sent by wrk (https://github.com/wg/wrk) over
connections that stay open. The service is measured with its own size of batches and with `--max-batch 1`, in
turns. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from serving_process import served

BOUNDARY = "effnet-benchmark"
MOST_PHOTOS = 100
LUA = """
local bodies = {}
for name in io.popen("ls '%(folder)s'"):lines() do
  local file = io.open("%(folder)s/" .. name, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
local next_body = 0
wrk.method = "POST"
wrk.path = "/v1/predict"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=%(boundary)s"
request = function()
  next_body = next_body %% #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next_body])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "max_ms": %%f, "errors": %%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def write_bodies(photos: Path, folder: Path) -> int:
    """Write photos as bodies of requests, and wrk's script; return how many there are."""
    (folder / "bodies").mkdir()
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = files[:: max(len(files) // MOST_PHOTOS, 1)][:MOST_PHOTOS]
    for number, path in enumerate(files):
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{number}.jpg"\r\n\r\n'
        )
        tail = f"\r\n--{BOUNDARY}--\r\n"
        body = head.encode() + path.read_bytes() + tail.encode()
        (folder / "bodies" / f"{number:03}").write_bytes(body)
    (folder / "post.lua").write_text(LUA % {"folder": folder / "bodies", "boundary": BOUNDARY})
    return len(files)


def load(address: str, script: Path, clients: int, seconds: float) -> dict[str, float]:
    """Return what wrk measured."""
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds:g}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        address,
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output[output.index('{"requests"') :])


def batch_size(metrics: str) -> float:
    """Return the mean size of the batches so far."""
    numbers = dict(
        line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("effnet_batch_images_")
    )
    total = sum(float(value) for name, value in numbers.items() if "_sum" in name)
    return total / sum(float(value) for name, value in numbers.items() if "_count" in name)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--serve", default="", help="more options of effnet serve, as one text")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        photos = write_bodies(arguments.photos, Path(name))
        for _ in range(arguments.rounds):
            for size in (arguments.max_batch, 1):
                options = ["--max-batch", str(size), *arguments.serve.split()]
                with served([arguments.source], *options) as service:
                    load(service.address, Path(name) / "post.lua", 8, 2)  # Caches and clocks get warm.
                    for clients in arguments.clients:
                        before = service.processor_s()
                        row = load(service.address, Path(name) / "post.lua", clients, arguments.seconds)
                        worked = service.processor_s() - before
                        rows.append(
                            {
                                "max_batch": size,
                                "clients": clients,
                                "mean_batch_so_far": batch_size(service.get("/metrics")),
                                "processor_ms_per_request": 1000 * worked / max(row["requests"], 1),
                                "memory_mib": service.memory_mib(),
                                **row,
                            }
                        )
    summary = []
    print("max batch clients requests/s   p50 ms   p99 ms  CPU ms errors")
    for size in (arguments.max_batch, 1):
        for clients in arguments.clients:
            same = [row for row in rows if (row["max_batch"], row["clients"]) == (size, clients)]
            rates = [row["requests"] / row["seconds"] for row in same]
            entry = {
                "max_batch": size,
                "clients": clients,
                "requests_per_s": statistics.median(rates),
                "p50_ms": statistics.median(row["p50_ms"] for row in same),
                "p99_ms": statistics.median(row["p99_ms"] for row in same),
                "processor_ms": statistics.median(row["processor_ms_per_request"] for row in same),
                "errors": sum(row["errors"] for row in same),
            }
            summary.append(entry)
            print(
                f"{size:9} {clients:7} {entry['requests_per_s']:10.1f} {entry['p50_ms']:8.1f} "
                f"{entry['p99_ms']:8.1f} {entry['processor_ms']:7.1f} {entry['errors']:6.0f}"
            )
    most = max(arguments.clients)
    batched, single = (entry["requests_per_s"] for entry in summary if entry["clients"] == most)
    document = {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "photos": photos,
        "serve": arguments.serve,
        "summary": summary,
        "gain_of_batching": batched / single,
        "rounds": rows,
    }
    print(
        f"batches of up to {arguments.max_batch} against 1, at {most} clients: {batched / single:.2f} times"
    )
    text = json.dumps(document)
    if arguments.out:
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    main()

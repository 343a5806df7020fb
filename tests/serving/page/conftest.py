"""Two networks that have learnt three colours (one of them with wrong names), served to a browser."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from effnet.api import configure, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json

COLORS = {"amber": (230, 170, 20), "teal": (20, 150, 140), "violet": (120, 40, 200)}
WRONG = {"amber": "violet", "teal": "teal", "violet": "amber"}
RECIPE = """
[model]
network = "{network}"
[data]
source = "{photos}"
crop_area = [0.6, 1.0]
[progressive]
stages = 1
image_size = [32, 32]
randaugment_magnitude = [0.0, 0.0]
dropout_rate = [0.0, 0.0]
drop_path_rate = [0.0, 0.0]
[train]
epochs = 12
batch_size = 16
label_smoothing = 0.0
[optimizer]
name = "adamw"
epsilon = 1e-8
[learning_rate]
base = 0.02
base_batch_size = 16
schedule = "cosine"
warmup_epochs = 1
[ema]
decay = 0.8
"""


def disc(
    color: tuple[int, int, int], rng: np.random.Generator, width: int = 60, height: int = 48
) -> Image.Image:
    """A disc of a colour on noise."""
    pixels = rng.normal(128, 30, (height, width, 3))
    rows, columns = np.mgrid[:height, :width]
    row, column = rng.uniform(0.4, 0.6, 2) * (height, width)
    pixels[np.hypot(rows - row, columns - column) < 0.3 * height] = color
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def train_run(folder: Path, names: dict[str, str]) -> Path:
    """Learn to call each colour by its name in ``names``."""
    rng = np.random.default_rng(0)
    for color, rgb in COLORS.items():
        for split, count in (("train", 24), ("val", 4)):
            place = folder / "photos" / split / names[color]
            place.mkdir(parents=True)
            for index in range(count):
                disc(rgb, rng).save(place / f"{index}.png")
    stage = StageSpec(
        operation="fused_mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=16, repeats=1
    )
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=32, image_size=32, train_size=32
    )
    (folder / "tiny.json").write_text(spec_to_json(spec))
    recipe = folder / "two-colors.toml"
    recipe.write_text(RECIPE.format(network=folder / "tiny.json", photos=folder / "photos"))
    start_run(configure(recipe=recipe), folder / folder.name, quiet=True)
    return folder / folder.name


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """A run that knows the colours, and one that takes two of them for each other."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("right", "wrong"):
        (folder / name).mkdir()
    return train_run(folder / "right", {name: name for name in COLORS}), train_run(folder / "wrong", WRONG)


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """The browser: Debian's, or one that Playwright installed."""
    if path := shutil.which("chromium"):
        return path
    with sync_playwright() as playwright:
        if Path(playwright.chromium.executable_path).exists():
            return None
    pytest.skip("no browser: install Debian's package chromium, or run `playwright install chromium`")


@pytest.fixture(scope="session")
def address(chromium, runs) -> Iterator[str]:
    """Where ``effnet serve`` answers, a process of its own."""
    command = [sys.executable, "-m", "effnet", "serve", *map(str, runs), "--port", "0", "--threads", "1"]
    command += ["--engine", "eager"]
    environment = {key: value for key, value in os.environ.items() if key != "EFFNET_TOKEN"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"http://[\w.:]+/", line):
                    yield found[0]
                    break
            else:
                pytest.fail("the service did not start: " + "".join(lines))
        finally:
            process.send_signal(signal.SIGINT)  # Which, unlike SIGTERM, waits for no load balancer.


@pytest.fixture(scope="module")
def browser(chromium) -> Iterator[Any]:
    """Closed behind each module: Playwright keeps an event loop running, and other tests start their own."""
    expect.set_options(timeout=15_000)  # A busy machine is no failure.
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address) -> Iterator[Callable[..., Any]]:
    """Open the page in a context of its own; whatever goes wrong in it or leaves the server is an error.

    ``open_page(before=..., **options)``: ``before`` is called with the page before it is loaded, the options
    are the browser context's.
    """
    wrong: list[str] = []
    contexts = []

    def open_page(before: Callable[[Any], object] | None = None, **options: Any) -> Any:
        context = browser.new_context(**{"reduced_motion": "reduce", **options})
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: _judge(message, wrong))
        page.on(
            "filechooser", lambda _: None
        )  # Intercepted from here on, not only when a test waits for one.
        page.on("request", lambda request: _judge_request(request.url, address, wrong))
        if before:
            before(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _judge(message: Any, wrong: list[str]) -> None:
    # A status that is not 2xx is no mistake of the page.
    if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
        wrong.append(message.text)


def _judge_request(url: str, address: str, wrong: list[str]) -> None:
    if not url.startswith((address, f"blob:{address}", "data:")):
        wrong.append(f"request to {url}")


@pytest.fixture
def page(open_page) -> Any:
    """The page at the size of a desktop, ready."""
    page = open_page()
    expect(page.locator("#intake")).to_be_visible()
    return page


@pytest.fixture
def image() -> Callable[..., dict[str, Any]]:
    """A picture of a colour that the networks have not seen, as a file to upload: ``image("teal")``."""
    rng = np.random.default_rng(7)

    def image(color: str, name: str = "", width: int = 60, height: int = 48) -> dict[str, Any]:
        encoded = io.BytesIO()
        disc(COLORS[color], rng, width, height).save(encoded, "PNG")
        return {"name": name or f"{color}.png", "mimeType": "image/png", "buffer": encoded.getvalue()}

    return image


@pytest.fixture
def add(page) -> Callable[..., None]:
    """Choose files, and wait for every answer: ``add(image("teal"))``."""

    def add(*files: dict[str, Any]) -> None:
        page.set_input_files("#files", list(files))
        expect(page.locator("#progress")).to_be_hidden()

    return add

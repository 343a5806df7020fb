"""The folder that ``effnet explain`` writes: overlays, sheets of them, raw maps, and a summary."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from effnet.arch.preprocessing import Preprocessing
from effnet.data.bad_images import BadImage
from effnet.evaluation.predictor import Predictor
from effnet.explanation.checking import Match, verdict_of
from effnet.explanation.explaining import PREDICTED, Explanation, explain_images, network_of
from effnet.explanation.images import NamedImage
from effnet.explanation.layers import HEAD
from effnet.explanation.methods import DEFAULT_EFFORT, Effort, Method
from effnet.explanation.overlay import overlay
from effnet.explanation.sheet import Cell, draw_sheet
from effnet.files import whole_file, write_json

SUMMARY_FILE = "explanation.json"
_ROWS = 16
"""Images on a sheet."""
_SHEETS = 10
"""Of more images than these have there are overlays, and no sheets: all pictures of them are in memory."""
_SHOWN = 224
"""Side of the pictures that are kept for the sheets, in pixels."""


@dataclass(kw_only=True, slots=True)
class Gallery:
    """What has been drawn so far of some images."""

    out: Path
    images: tuple[NamedImage, ...]
    methods: tuple[Method, ...]
    about: str = PREDICTED
    layer: str = HEAD
    effort: Effort = DEFAULT_EFFORT
    check: bool = False
    raw: bool = False
    """Whether raw maps are written as well."""
    networks: list[dict[str, Any]] = field(default_factory=list, init=False)
    """Those that have been asked, as in the summary."""
    _bad: dict[int, BadImage] = field(default_factory=dict, init=False)
    _answers: list[dict[int, dict[str, Any]]] = field(default_factory=list, init=False)
    """Of each network, by image."""
    _views: dict[int, UInt8[np.ndarray, "_ _ 3"]] = field(default_factory=dict, init=False)
    """As the first network sees them."""
    _columns: list[tuple[tuple[str, ...], dict[int, Cell]]] = field(default_factory=list, init=False)

    def add(
        self,
        name: str,
        source: str,
        predictor: Predictor,
        *,
        batch_size: int = 8,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        """Ask one more network, and write its overlays.

        Args:
            name: Of the network, for files and titles; no other one has it.
            source: Where it came from.
            predictor: The network.
            batch_size: Images at a time.
            report: Told after each image how many have been explained, and of how many.

        Raises:
            UserError: As `effnet.explanation.explaining.explain_images`.
            OSError: A file cannot be written.
        """
        cells: dict[Method, dict[int, Cell]] = {method: {} for method in self.methods}
        matches: dict[Method, list[Match]] = {method: [] for method in self.methods}
        answers: dict[int, dict[str, Any]] = {}
        found = explain_images(
            predictor,
            self.images,
            self.methods,
            about=self.about,
            layer=self.layer,
            effort=self.effort,
            batch_size=batch_size,
            check=self.check,
        )
        for index, one in enumerate(found):
            if isinstance(one, BadImage):
                self._bad[index] = one
            else:
                if len(self._views) < _ROWS * _SHEETS:
                    self._views.setdefault(index, _shown(one.view))
                answers[index] = _answer(one) | {"maps": self._write(index, name, one)}
                for method in self.methods:
                    if index in self._views:
                        picture = _shown(overlay(one.view, one.maps[method]))
                        cells[method][index] = Cell(picture=picture, lines=_caption(one))
                    matches[method] += [one.matches[method]] if self.check else []
            if report:
                report(index + 1, len(self.images))
        self.networks.append(
            {
                "name": name,
                "source": source,
                "network": network_of(predictor).spec.name,
                "view": view_of(predictor.preprocessing),
            }
            | (
                {"check": {method: verdict_of(matches[method]).to_dict() for method in self.methods}}
                if self.check and answers
                else {}
            )
        )
        self._answers.append(answers)
        self._columns += [((name, self._title(method)), cells[method]) for method in self.methods]

    @property
    def bad(self) -> tuple[BadImage, ...]:
        """Images that cannot be read."""
        return tuple(self._bad[index] for index in sorted(self._bad))

    def finish(self) -> list[Path]:
        """Write the sheets and the summary; return the files of the sheets.

        Raises:
            OSError: A file cannot be written.
        """
        shown = sorted(self._views)
        sheets = []
        titles = [("what the network sees",), *self._titles()]
        for start in range(0, len(shown), _ROWS):
            rows = [
                [
                    Cell(picture=self._views[index], lines=(self.images[index].short_name,)),
                    *(cells[index] for _, cells in self._columns),
                ]
                for index in shown[start : start + _ROWS]
            ]
            number = start // _ROWS + 1
            sheets.append(self.out / ("sheet.png" if number == 1 else f"sheet-{number}.png"))
            draw_sheet(titles, rows, sheets[-1])
        write_json(self.out / SUMMARY_FILE, self.summary())
        return sheets

    def summary(self) -> dict[str, Any]:
        """Return everything but the pictures, as plain data."""
        return {
            "methods": list(self.methods),
            "layer": self.layer,
            "class": self.about,
            "networks": self.networks,
            "images": [
                {"image": image.name, "error": self._bad[index].reason}
                if index in self._bad
                else {"image": image.name, "answers": [answers[index] for answers in self._answers]}
                for index, image in enumerate(self.images)
            ],
        }

    def _titles(self) -> list[tuple[str, ...]]:
        return [title if len(self.networks) > 1 else title[1:] for title, _ in self._columns]

    def _title(self, method: Method) -> str:
        return method if self.layer == HEAD else f"{method}, {self.layer}"

    def _write(self, index: int, name: str, one: Explanation) -> dict[str, dict[str, str]]:
        files: dict[str, dict[str, str]] = {}
        for method in self.methods:
            stem = (
                f"{index + 1:03d}-{file_name(Path(self.images[index].name).stem)}.{file_name(name)}.{method}"
            )
            files[method] = {"overlay": f"{stem}.png"}
            with whole_file(self.out / f"{stem}.png") as temporary:
                Image.fromarray(overlay(one.view, one.maps[method])).save(temporary, format="png")
            if self.raw:
                files[method]["raw"] = f"{stem}.npy"
                _write_array(self.out / f"{stem}.npy", one.raw_maps[method])
        return files


def view_of(preprocessing: Preprocessing) -> str:
    """Say for people what part of an image a network sees."""
    side = preprocessing.image_size
    if preprocessing.crop_mode == "squash":
        return f"the whole image, resized to {side} x {side} px"
    share = preprocessing.crop_fraction
    return f"the middle square, {share:.1%} of the short side, resized to {side} x {side} px"


def unique_names(sources: Sequence[str]) -> tuple[str, ...]:
    """Return short names for runs, files and hub names, no two of which are equal."""
    names: list[str] = []
    for source in sources:
        path = Path(source)
        short = (path.stem if path.is_file() else path.name) or path.resolve().name
        same = sum(name == short or name.startswith(f"{short} (") for name in names)
        names.append(f"{short} ({same + 1})" if same else short)
    return tuple(names)


def file_name(text: str) -> str:
    """Return a text with nothing in it that a file's name must not have."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-") or "image"


def _shown(pixels: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    if len(pixels) <= _SHOWN:
        return pixels
    return cv2.resize(pixels, (_SHOWN, _SHOWN), interpolation=cv2.INTER_AREA)


def _answer(one: Explanation) -> dict[str, Any]:
    return {
        "predicted": one.predicted,
        "predicted_probability": one.predicted_probability,
        "explained": one.explained,
        "explained_probability": one.explained_probability,
    }


def _caption(one: Explanation) -> tuple[str, ...]:
    lines = (f"{one.explained} {one.explained_probability:.1%}",)
    if one.explained == one.predicted:
        return lines
    return (*lines, f"predicted {one.predicted} {one.predicted_probability:.0%}")


def _write_array(path: Path, values: Float32[np.ndarray, "_ _"]) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)

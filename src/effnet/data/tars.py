"""Images in tar files as webdataset writes them, each read where it lies, in any order.

An image's label is in a file of the same name beside it: ``0001.jpg`` and ``0001.cls``, or ``0001.json``.
Either may have several: ``.json`` a list, ``.cls`` whole numbers.
Where no image has one, as in the ImageNet-21k release of 2021, each tar is a class and is called like it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Int64

from effnet.data.cache import cache_folder, use_cached
from effnet.data.names import ArrowNames
from effnet.data.rows import Rows
from effnet.data.selection import ALL, Selection
from effnet.data.tar_headers import Member, read_members
from effnet.data.threads import thread_count
from effnet.data.walking import allowed_suffixes, is_image_name
from effnet.errors import UserError
from effnet.files import whole_file

JSON_LABELS = ("label", "class", "cls", "class_id", "class_name", "target", "labels")
"""Under which of these keys a ``.json`` file has the label; the first one counts."""

_INDEX_FORMAT = "2"
"""Another one where the same tars would give another index."""
_INDEX_SCHEMA = pa.schema(
    {
        "tar": pa.int32(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "name": pa.large_string(),
        "label": pa.dictionary(pa.int32(), pa.large_string()),
    }
)
_END_OF_LABEL = "\x1f"
"""Behind each label of an image that may have several; they are one text in the index."""
_SEVERAL_NUMBERS = re.compile(r"\d+(?:[\s,]+\d+)+")
_READ_AHEAD = 4096


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern stands for: ``{00..12}`` counts, ``{train,val}`` lists."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    options = match[1].split(",")
    if counts := re.fullmatch(r"(\d+)\.\.(\d+)", match[1]):
        first, last = counts.groups()
        options = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    start, end = pattern[: match.start()], pattern[match.end() :]
    names = (name for option in options for name in expand_braces(start + option + end))
    return list(dict.fromkeys(names))  # Inside other braces, the same name comes once for each of the others.


def is_tar_name(name: str) -> bool:
    """Whether a file is called like a tar; like a compressed one too, so that `read_tars` refuses it."""
    return re.search(r"\.(tar(\.\w+)?|tgz|txz)$", name.lower()) is not None and not name.startswith(".")


def tar_files(folder: Path) -> list[Path]:
    """Return the tars in a folder, in order."""
    return sorted(file for file in folder.iterdir() if is_tar_name(file.name))


def read_tars(files: Sequence[Path], selection: Selection = ALL) -> Rows:
    """List the images in tars by their headers, and read them when they are needed.

    The list is kept in `effnet.data.cache.cache_folder`, so that the tars are scanned again only when one
    of them has changed.

    Args:
        files: Of one split, in order.
        selection: Its label column is the only key of ``.json`` files that has labels.

    Raises:
        UserError: A tar cannot be read, is cut off, or has no images; some images have labels and others
            have none, or none has one under the key that is chosen.
    """
    index = _index(files, (selection.label_column,) if selection.label_column else JSON_LABELS)
    labels, stems = index.column("label"), pa.array([file.stem for file in files], pa.large_string())
    if labels.null_count == len(labels) and selection.label_column:
        raise UserError(
            f"data.label_column is '{selection.label_column}', but no .json file of '{files[0]}' has that key"
        )
    if labels.null_count == len(labels):
        labels = pa.DictionaryArray.from_arrays(index.column("tar"), stems)
    elif labels.null_count:
        name = index.column("name")[pc.index(labels.is_null(), True).as_py()].as_py()
        raise UserError(f"{name} has no label, though others have: write one beside it, as .cls or .json")
    else:
        labels = _parsed(labels)
    names = ArrowNames(index.column("name"))
    places = _Places(*(index.column(name).to_numpy() for name in ("tar", "offset", "size")))
    return Rows(class_names=(), labels=labels, names=names, read=partial(_read_member, files, places))


class _Places(NamedTuple):
    """Where images lie."""

    tars: Int32[np.ndarray, " N"]
    offsets: Int64[np.ndarray, " N"]
    sizes: Int64[np.ndarray, " N"]


def _read_member(files: Sequence[Path], places: _Places, row: int) -> bytes:
    size = places.sizes[row]
    with files[places.tars[row]].open("rb", buffering=0) as file:
        file.seek(places.offsets[row])
        content = file.read(size)
    if len(content) != size:
        raise OSError(errno.EIO, "its tar changed after it was opened")
    return content


def _parsed(labels: pa.DictionaryArray) -> pa.Array:
    """Return labels as numbers where all are, and as lists where an image may have several."""
    texts = [text.split(_END_OF_LABEL) for text in labels.dictionary.to_pylist()]
    lists: list[list[str]] = [parts[:-1] if len(parts) > 1 else parts for parts in texts]
    is_number = all(label.isdecimal() and str(int(label)) == label for label in chain.from_iterable(lists))
    values = [[int(label) for label in parts] for parts in lists] if is_number else lists
    if any(len(parts) > 1 for parts in texts):
        kind = pa.int64() if is_number else pa.large_string()
        return pa.array(values, pa.large_list(kind)).take(labels.indices)
    if not is_number:
        return labels
    return pa.DictionaryArray.from_arrays(labels.indices, pa.array([number for (number,) in values]))


def _index(files: Sequence[Path], keys: tuple[str, ...]) -> pa.RecordBatch:
    """Return one row an image, from the cache where nothing has changed."""
    try:
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        digest = hashlib.sha256(json.dumps([_INDEX_FORMAT, keys, states]).encode()).hexdigest()
        path = cache_folder() / "tars" / f"{digest[:32]}.arrow"
        with suppress(OSError, pa.ArrowException):
            index = _map_index(path)
            use_cached(path)
            return index
        index = _scan(files, keys)
    except OSError as error:
        raise UserError(f"cannot read '{error.filename or files[0]}': {error.strerror or error}") from None
    # Without a cache that can be written the next scan takes as long, and no more.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, pa.ipc.new_file(str(temporary), index.schema) as writer:
            writer.write_batch(index)
    return index


def _map_index(path: Path) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        return reader.get_batch(0)


def _scan(files: Sequence[Path], keys: tuple[str, ...]) -> pa.RecordBatch:
    with ThreadPoolExecutor(thread_count(0)) as pool:
        tables = list(pool.map(_scan_tar, range(len(files)), files, repeat(keys)))
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks().to_batches()[0]


def _scan_tar(number: int, path: Path, keys: tuple[str, ...]) -> pa.Table:
    """List the images of a tar, each with its label, if any."""
    images: list[Member] = []
    by_class_file: dict[str, str] = {}
    by_json: dict[str, str] = {}
    with path.open("rb", buffering=_READ_AHEAD) as file:
        for member in read_members(file, path):
            stem, _, suffix = member.name.rpartition(".")
            if is_image_name(member.name.rpartition("/")[2]):
                images.append(member)
            elif suffix.lower() == "cls":
                text = _content(file, member).decode(errors="replace").strip()
                several = _SEVERAL_NUMBERS.fullmatch(text) is not None
                by_class_file[stem] = _joined(re.split(r"[\s,]+", text)) if several else text
            elif suffix.lower() == "json" and (label := _json_label(_content(file, member), keys)):
                by_json[stem] = label
    labels = by_json | by_class_file
    images = [image for image in images if not _is_companion(image.name, labels)]
    if not images:
        raise UserError(f"'{path}' has no image; take it away, or put {allowed_suffixes()} into it")
    names, offsets, sizes = zip(*images, strict=True)
    found = [labels.get(name.rpartition(".")[0]) for name in names]
    return pa.table(
        [
            pa.array(np.full(len(images), number, np.int32)),
            pa.array(offsets, pa.int64()),
            pa.array(sizes, pa.int64()),
            pa.array([f"{path.name}/{name}" for name in names], pa.large_string()),
            pa.array(found, pa.large_string()).dictionary_encode(),
        ],
        schema=_INDEX_SCHEMA,
    )


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _json_label(text: bytes, keys: tuple[str, ...]) -> str | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    label = next((values[key] for key in keys if key in values), None)
    if isinstance(label, list) and all(isinstance(one, int | str) for one in label):
        return _joined([str(one) for one in label]) or None
    return str(label) if isinstance(label, int | str) else None


def _joined(labels: Sequence[str]) -> str:
    return "".join(label + _END_OF_LABEL for label in labels)


def _is_companion(name: str, labels: dict[str, str]) -> bool:
    """Whether an image goes with one that has a label, as ``0001.mask.png`` with ``0001.jpg``."""
    folder, slash, file = name.rpartition("/")
    sample = folder + slash + file.partition(".")[0]
    return name.rpartition(".")[0] not in labels and sample in labels

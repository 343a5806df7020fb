"""Parts of documents that are made from results, between marks."""

from __future__ import annotations


def filled(text: str, marks: tuple[str, str], content: str) -> str:
    """Return a document with other content between its marks.

    Args:
        text: The document.
        marks: What is before and behind the place.
        content: What comes there, line breaks at both ends included.

    Raises:
        ValueError: It has no marks.
    """
    head, begin, rest = text.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the document has no place between '{marks[0]}' and '{marks[1]}'")
    return head + begin + content + end + tail

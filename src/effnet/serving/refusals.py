"""Requests that are not answered, and why: the status and the one sentence that the client gets."""

from __future__ import annotations


class RefusalError(Exception):
    """A request that cannot be answered.

    Args:
        status: Of the response, 400 or above.
        sentence: What was given, what is allowed, what to do.
        retry_after_s: After how many seconds the same request may be answered; None: never.
    """

    def __init__(self, status: int, sentence: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Return what the response says beside the sentence."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status == 408:
            headers["Connection"] = "close"
        return headers

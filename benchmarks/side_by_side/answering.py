"""What a process does that `side_by_side.process.Worker` has started."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings


def answer_all(asked: object) -> None:
    """Answer until the input ends; whatever libraries print goes to the error stream.

    Args:
        asked: Its methods get the requests that bear their names, and return what JSON can hold.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(asked, request.pop("do"))(**request)
        except Exception as error:  # Told to whoever asked.
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")

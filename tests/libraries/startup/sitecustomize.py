"""Python loads this file at the start of every process that tests start, since ``conftest`` puts it on their path.

What torch, Lightning and transformers say about their own future goes into the file that ``GALPACA_TEST_WARNINGS``
names, a line of JSON each, and not to standard error, which stays as a user sees it. ``conftest`` fails the test in
which a line appears that ``libraries.deprecations`` does not list.

It also has them collect garbage a hundred times less often: imports make a million objects which all stay, and looking
through them again and again takes half a second of a start's six.
"""

import gc
import json
import logging
import os
import re
import sys
import warnings
from typing import Any

# Those that Python does not show by default.
HIDDEN = (DeprecationWarning, PendingDeprecationWarning)
CATEGORIES = (*HIDDEN, FutureWarning)
# In warnings of other kinds, and in what is logged, which is how transformers announces changes.
WORDS = re.compile(r"deprecat|will be removed|(will|may) change in", re.IGNORECASE)
LIBRARIES = ("torch", "lightning", "transformers")
NAMED = re.compile(rf"\b({'|'.join(LIBRARIES)})\b")


def is_announcement(message: str, category: type[Warning], filename: str) -> bool:
    """Of a library that is watched, or about one, be the caller that it is put down to another library or ours."""
    if not issubclass(category, CATEGORIES) and not WORDS.search(message):
        return False
    _, installed, path = filename.rpartition("-packages/")
    return path.split("/")[0] in LIBRARIES or (not installed and "galpaca" in path) or bool(NAMED.search(message))


def write(message: str, kind: str, where: str) -> None:
    path = os.environ["GALPACA_TEST_WARNINGS"]  # as it is now: a forked process may have another than its server
    line = json.dumps({"message": message, "kind": kind, "where": where, "command": sys.argv}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())  # at once, since many processes write
    finally:
        os.close(descriptor)


def watch() -> None:
    # As with -W on the command line: what is requested is not hushed.
    sys.warnoptions += [f"default::{category.__name__}" for category in CATEGORIES]
    for category in CATEGORIES:
        warnings.simplefilter("default", category)
    show, handle = warnings.showwarning, logging.Logger.handle

    def record(message: Any, category: type[Warning], filename: str, lineno: int, *further: Any, **named: Any) -> None:
        if is_announcement(str(message), category, filename):
            write(str(message), category.__name__, f"{filename}:{lineno}")
        elif not issubclass(category, HIDDEN):
            show(message, category, filename, lineno, *further, **named)

    def record_logged(self: logging.Logger, record: logging.LogRecord) -> None:
        if self.name.split(".")[0] in LIBRARIES and WORDS.search(record.getMessage()):
            write(record.getMessage(), record.levelname, f"{record.pathname}:{record.lineno}")
        handle(self, record)

    warnings.showwarning = record
    logging.Logger.handle = record_logged  # type: ignore[method-assign]


if "GALPACA_TEST_WARNINGS" in os.environ:
    watch()
    gc.set_threshold(70_000)

"""Python loads this file at the start of every process that tests start, since ``conftest`` puts it on their path.

What libraries say about their own future goes into the file that ``GALPACA_TEST_WARNINGS`` names, a line of JSON each,
and not to standard error, which stays as a user sees it. ``conftest`` fails the test in which a line appears that
``libraries.deprecations`` does not list.
"""

import json
import logging
import os
import re
import sys
import warnings
from typing import Any

CATEGORIES = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# In warnings of other kinds, and in what is logged, which is how transformers announces changes.
WORDS = re.compile(r"deprecat|will be removed|(will|may) change in", re.IGNORECASE)
LOGGERS = ("torch", "lightning", "transformers")


def is_announcement(message: str, category: type[Warning]) -> bool:
    return issubclass(category, CATEGORIES) or WORDS.search(message) is not None


def write(path: str, message: str, kind: str, where: str) -> None:
    line = json.dumps({"message": message, "kind": kind, "where": where, "command": sys.argv}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())  # at once, since many processes write
    finally:
        os.close(descriptor)


def watch(path: str) -> None:
    # As with -W on the command line: what was asked for is not hushed.
    sys.warnoptions += [f"default::{category.__name__}" for category in CATEGORIES]
    for category in CATEGORIES:
        warnings.simplefilter("default", category)
    show, handle = warnings.showwarning, logging.Logger.handle

    def record(message: Any, category: type[Warning], filename: str, lineno: int, *further: Any, **named: Any) -> None:
        if is_announcement(str(message), category):
            write(path, str(message), category.__name__, f"{filename}:{lineno}")
        else:
            show(message, category, filename, lineno, *further, **named)

    def record_logged(self: logging.Logger, entry: logging.LogRecord) -> None:
        if self.name.split(".")[0] in LOGGERS and WORDS.search(entry.getMessage()):
            write(path, entry.getMessage(), entry.levelname, f"{entry.pathname}:{entry.lineno}")
        handle(self, entry)

    warnings.showwarning = record
    logging.Logger.handle = record_logged  # type: ignore[method-assign]


if "GALPACA_TEST_WARNINGS" in os.environ:
    watch(os.environ["GALPACA_TEST_WARNINGS"])

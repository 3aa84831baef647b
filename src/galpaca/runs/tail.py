"""Lines that are added to a file while it is read."""

import os
from pathlib import Path


class LineTail:
    """The complete lines of a growing file, each once; all of them again if the file was replaced or truncated.

    Attributes:
        restarted: the last call of ``read`` began at the file's first line, or found no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restarted = True
        self._inode, self._position = 0, 0

    def read(self) -> list[str]:
        """The lines since the last call; an incomplete last line is left for the next one."""
        try:
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._position:
                    self._inode, self._position = facts.st_ino, 0
                self.restarted = self._position == 0
                file.seek(self._position)
                lines = [line for line in file if line.endswith(b"\n")]
        except FileNotFoundError:
            self.restarted, self._inode, self._position = True, 0, 0
            return []
        self._position += sum(map(len, lines))
        return [line.decode("utf-8", "replace") for line in lines]

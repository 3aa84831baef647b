"""Data sets of the Hugging Face Hub, from its cache where there is no network."""

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from galpaca.data.sources.saved import digest_of, table_of
from galpaca.data.sources.table import Table
from galpaca.errors import InputError, first_line


class HubSource:
    """A data set of the Hub.

    Args:
        config: its configuration, where it has several.

    Raises:
        InputError: the data set, its configuration, split or revision cannot be had.
    """

    kind = "rows"

    def __init__(self, name: str, split: str = "train", revision: str | None = None, config: str | None = None) -> None:
        import datasets  # a second to import, and only these doors need it

        self.name = name
        try:
            self._data: Any = datasets.load_dataset(name, config, split=split, revision=revision)
        except Exception as error:  # the library raises a dozen unrelated kinds
            where = f"{name} ({f'configuration {config}, ' if config else ''}split {split})"
            if names := _configurations(name, revision, error):
                raise InputError(
                    f"the data set has {'no such configuration' if config else 'several configurations'}",
                    where=where,
                    why=f"it has {', '.join(names)}",
                    fix=f"data.hub_config={' or '.join(names)}",
                ) from None
            raise InputError(
                f"cannot load the data set: {type(error).__name__}: {first_line(error)}",
                where=where,
                why="it is not prepared, not in the local cache, and not available from the Hub",
                fix="check the name, split and network; run galpaca prepare +experiment=NAME with network access; "
                "or download it and use data=local data.path=FILE",
            ) from None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all rows."""
        return digest_of(self.lines())

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        return table_of(self._data, self.name, wanted)

    def lines(self) -> Iterator[str]:
        """Each row as one line of JSON."""
        return (json.dumps(row, sort_keys=True, default=str) for row in self._data)


def _configurations(name: str, revision: str | None, error: Exception) -> list[str]:
    """The configurations to choose from, if the error is about them."""
    if not isinstance(error, ValueError) or "onfig" not in str(error):
        return []
    import datasets

    try:
        return list(datasets.get_dataset_config_names(name, revision=revision))
    except Exception:  # the library raises a dozen unrelated kinds
        return []

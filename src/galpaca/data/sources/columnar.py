"""Records in Parquet, Arrow and Feather: only the columns that are wanted are read."""

from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galpaca.data.sources.table import Table
from galpaca.errors import Problems, first_line

if TYPE_CHECKING:
    import pyarrow

# Rows that are made into Python's objects at a time.
_BATCH_ROWS = 10_000


def read_columns(content: bytes, path: Path, problems: Problems, table: Table, wanted: AbstractSet[str] | None) -> None:
    """Adds the rows of a file to a table.

    Args:
        wanted: columns to read; None reads all.
    """
    import pyarrow

    try:
        names, batches = _open(pyarrow.BufferReader(content), path.suffix.lower(), wanted)
        for batch in batches:
            for value in batch.to_pylist():
                table.add(None, value, None)
            unread = [name for name in names if name not in batch.schema.names]
            table.columns.update(dict.fromkeys(unread, batch.num_rows))
    except Exception as error:  # the library raises a dozen unrelated kinds, of its own and of Python
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
        problems.add(f"not a readable {kind} file: {first_line(error)}", where=path, fix="write the file again")


def _open(file: Any, suffix: str, wanted: AbstractSet[str] | None) -> tuple[list[str], "Iterator[pyarrow.RecordBatch]"]:
    """All column names, and the rows of those that are wanted."""
    if suffix == ".parquet":
        import pyarrow.parquet

        parquet = pyarrow.parquet.ParquetFile(file)
        names = list(parquet.schema_arrow.names)
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the column {min(twice)!r} is there more than once")
        return names, parquet.iter_batches(_BATCH_ROWS, columns=_chosen(names, wanted))
    table = _arrow_table(file)
    return list(table.schema.names), iter(table.select(_chosen(table.schema.names, wanted)).to_batches(_BATCH_ROWS))


def _arrow_table(file: Any) -> "pyarrow.Table":
    """A file of either form: with its index at the end, as Feather has it, or a stream, as ``datasets`` writes it."""
    import pyarrow
    import pyarrow.feather

    try:
        return pyarrow.feather.read_table(file, memory_map=False)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        return pyarrow.ipc.open_stream(file).read_all()


def _chosen(names: Collection[str], wanted: AbstractSet[str] | None) -> list[str]:
    return [name for name in names if wanted is None or name in wanted]

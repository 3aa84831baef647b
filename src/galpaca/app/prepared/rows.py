"""Where the run's records come from: a file, a saved Hub data set, or the Hub."""

from pathlib import Path

from galpaca.app.prepared.folders import Filled, make_folder, read_checksums
from galpaca.app.prepared.hub import hub_name, prepare_command
from galpaca.data.sources import FileSource, HubSource, SavedSource, Source
from galpaca.data.spec import DataSpec

_ROWS = "rows.jsonl"


def open_source(spec: DataSpec, root: Path) -> Source:
    """Opens the records; a saved data set needs no request to the Hub.

    Args:
        root: folder that data sets are saved under.

    Raises:
        InputError: they cannot be loaded.
    """
    if spec.path:
        return FileSource(Path(spec.path))
    folder = rows_folder(spec, root)
    saved = read_checksums(folder)
    if saved is None:
        return HubSource(str(spec.hub_id), spec.hub_split, spec.hub_revision)
    return SavedSource(folder / _ROWS, str(spec.hub_id), saved.source["fingerprint"], prepare_command())


def rows_folder(spec: DataSpec, root: Path) -> Path:
    """The folder of a saved Hub data set, whether or not it exists."""
    return root / ".cache" / "rows" / f"{hub_name(str(spec.hub_id), spec.hub_revision)}--{spec.hub_split}"


def make_rows(spec: DataSpec, root: Path) -> bool:
    """Saves a Hub data set unless an intact copy exists.

    Returns:
        Whether it was saved by this call.

    Raises:
        InputError: it cannot be loaded.
    """

    def fill(partial: Path) -> Filled:
        source = HubSource(str(spec.hub_id), spec.hub_split, spec.hub_revision)
        source.rows()  # refuses one without any
        (partial / _ROWS).write_text("".join(f"{line}\n" for line in source.lines()), encoding="ascii")
        source_keys = {"hub_id": spec.hub_id, "split": spec.hub_split, "revision": spec.hub_revision}
        return Filled({**source_keys, "fingerprint": source.fingerprint}, {})

    return make_folder(rows_folder(spec, root), fill, thorough=True)

"""Where the run's records come from: a file, a saved Hub data set, or the Hub."""

from pathlib import Path

from galpaca.app.prepared.folders import Filled, make_folder, read_checksums
from galpaca.app.prepared.hub import hub_name, prepare_command
from galpaca.data.reading import load_records
from galpaca.data.sources.files import open_files
from galpaca.data.sources.hub import HubSource
from galpaca.data.sources.saved import SavedSource
from galpaca.data.sources.table import Source
from galpaca.data.spec import DataSpec

_ROWS = "rows.jsonl"


def open_source(spec: DataSpec, root: Path) -> Source:
    """Opens the records; a saved data set needs no request to the Hub.

    Args:
        root: folder that data sets are saved under.

    Raises:
        InputError: they cannot be loaded.
    """
    if spec.paths:
        return open_files(spec.paths, spec.hub_split)
    folder = rows_folder(spec, root)
    saved = read_checksums(folder)
    if saved is None:
        return _on_the_hub(spec)
    return SavedSource(folder / _ROWS, str(spec.hub_id), saved.source["fingerprint"], prepare_command())


def rows_folder(spec: DataSpec, root: Path) -> Path:
    """The folder of a saved Hub data set, whether or not it exists."""
    config = f"--{spec.hub_config}" if spec.hub_config else ""
    name = f"{hub_name(str(spec.hub_id), spec.hub_revision)}{config}--{spec.hub_split}"
    return root / ".cache" / "rows" / name


def _on_the_hub(spec: DataSpec) -> HubSource:
    return HubSource(str(spec.hub_id), spec.hub_split, spec.hub_revision, spec.hub_config)


def make_rows(spec: DataSpec, root: Path) -> bool:
    """Saves a Hub data set unless an intact copy exists.

    Returns:
        Whether it was saved by this call.

    Raises:
        InputError: it cannot be loaded.
    """

    def fill(partial: Path) -> Filled:
        source = _on_the_hub(spec)
        load_records(source, spec.reading)  # what training would refuse is not saved
        (partial / _ROWS).write_text("".join(f"{line}\n" for line in source.lines()), encoding="ascii")
        source_keys = {"hub_id": spec.hub_id, "split": spec.hub_split, "revision": spec.hub_revision}
        source_keys |= {"config": spec.hub_config} if spec.hub_config else {}
        return Filled({**source_keys, "fingerprint": source.fingerprint}, {})

    return make_folder(rows_folder(spec, root), fill, thorough=True)

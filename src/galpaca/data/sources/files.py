"""Files of records: their kind by the suffix, many of them by a list, a pattern or a folder."""

import difflib
import glob
import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from galpaca.data.sources.columnar import read_columns
from galpaca.data.sources.delimited import read_csv, read_tsv
from galpaca.data.sources.json_files import read_lines, read_list
from galpaca.data.sources.saved import SavedToDisk, is_saved
from galpaca.data.sources.table import Source, Table
from galpaca.data.sources.text import COMPRESSED, beside, decompressed, plain_copy
from galpaca.errors import InputError, Problems, restated
from galpaca.shell import module_line, python_line

Reader = Callable[[bytes, Path, Problems], Iterator[tuple[int | None, Any]]]

READERS: dict[str, Reader] = {
    ".json": read_list,
    ".jsonl": read_lines,
    ".ndjson": read_lines,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
COLUMNAR = (".parquet", ".arrow", ".feather")

_KINDS_FIX = (
    "use .json (a list of objects), .jsonl (one object a line), .csv, .tsv, .parquet, .arrow or .feather, also with "
    ".gz or .zst behind it; or a folder of them"
)
# Of a folder that was downloaded from the Hub, what is no data.
_NO_RECORDS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")


class FileSource:
    """A file of records, its kind known by its suffix, compressed or not.

    Raises:
        InputError: no such file, unknown kind, empty, not readable.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        if path.is_dir():
            raise InputError("expected a file, found a folder", where=path, fix="name a file of records in it")
        if not path.exists():
            raise InputError("no such file", where=path, why=f"looked in {path.parent.resolve()}", fix=_near(path))
        self.kind = suffix_of(path)
        if self.kind not in READERS and self.kind not in COLUMNAR:
            what = f"unsupported file type: {path.suffix or 'no suffix'}"
            raise InputError(what, where=path, fix=_fix_of_kind(path))
        self.fingerprint = hashlib.sha256(self._content()).hexdigest()

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        table = Table()
        self.add_to(table, wanted)
        if not table.values:
            raise InputError("the file has no records", where=self.path, fix="use a file with at least one record")
        return table

    def add_to(self, table: Table, wanted: AbstractSet[str] | None) -> None:
        """Adds the file's rows to a table.

        Raises:
            InputError: all that is wrong. Commands in fixes are for a copy that other programs can read, if need be.
        """
        content = self._content()
        if hashlib.sha256(content).hexdigest() != self.fingerprint:
            raise InputError("the file changed while it was being read", where=self.path, fix="run the command again")
        table.places.begin(self.name)
        with restated(partial(_of_a_plain_copy, content, self.path)), Problems() as problems:
            problems.collect(partial(self._read, decompressed(content, self.path), table, wanted, problems))

    def _read(self, content: bytes, table: Table, wanted: AbstractSet[str] | None, problems: Problems) -> None:
        if not content.strip():
            raise InputError("the file is empty", where=self.path, fix="use a file with at least one record")
        if self.kind in COLUMNAR:
            read_columns(content, self.path.with_suffix(self.kind), problems, table, wanted)
            return
        for line, value in READERS[self.kind](content, self.path, problems):
            table.add(line, value, wanted)

    def _content(self) -> bytes:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            what = f"cannot read the file: {error.strerror}"
            raise InputError(what, where=self.path, fix="check its permissions") from None
        if not content.strip():
            raise InputError("the file is empty", where=self.path, fix="use a file with at least one record")
        return content


class FilesSource:
    """Several files of records, one after the other.

    Args:
        name: what stands for all of them in messages.

    Raises:
        InputError: as ``FileSource``, of all files at once.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = f"{name} ({len(paths)} files)"
        with Problems() as problems:
            found = [problems.collect(partial(FileSource, path)) for path in paths]
        self._files = [file for file in found if file is not None]
        self.kind = " ".join(file.kind for file in self._files)
        digests = "".join(f"{file.fingerprint}\n" for file in self._files)
        self.fingerprint = hashlib.sha256(digests.encode()).hexdigest()

    def table(self, wanted: AbstractSet[str] | None = None) -> Table:
        table = Table()
        with Problems() as problems:
            for file in self._files:
                problems.collect(partial(file.add_to, table, wanted))
        if not table.values:
            raise InputError("the files have no records", where=self.name, fix="use files with at least one record")
        return table


def open_files(given: str | Sequence[str], split: str = "train") -> Source:
    """What a path, a pattern, a folder, or a list of them stands for.

    Args:
        split: which split to take of a folder that ``datasets`` has saved with several.

    Raises:
        InputError: nothing is there; a file is not readable or of an unknown kind; all at once.
    """
    texts = [given] if isinstance(given, str) else list(given)
    if not texts:
        raise InputError("the list of files is empty", where="data.path", fix="data.path=[FILE,FILE]")
    if len(texts) == 1 and is_saved(Path(texts[0])):
        return SavedToDisk(Path(texts[0]), split)
    with Problems() as problems:
        paths = [path for text in texts for path in problems.collect(partial(_paths, text)) or []]
        for path, count in Counter(paths).items():
            if count > 1:
                problems.add("the file is named more than once", where=path, fix="name it once")
    if len(paths) == 1:
        return FileSource(paths[0])
    return FilesSource(", ".join(texts), paths)


def _paths(text: str) -> list[Path]:
    """The files that one entry stands for, in the order of their names."""
    path = Path(text)
    if path.is_dir():
        return _files_of(path)
    if path.exists() or not glob.has_magic(text):
        return [path]
    names = glob.glob(text, recursive=True)  # noqa: PTH207 - Path.glob knows no absolute patterns
    found = sorted(Path(name) for name in names if _is_of_records(Path(name)))
    if not found:
        why = "no file of records has such a name"
        raise InputError("nothing fits this pattern", where=text, why=why, fix=f"check it; {_KINDS_FIX}")
    return found


def _files_of(folder: Path) -> list[Path]:
    _refuse_configurations(folder)
    found = sorted(
        path
        for path in folder.rglob("*")
        if _is_of_records(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise InputError("the folder has no files of records", where=folder, fix=_KINDS_FIX)
    return found


def _refuse_configurations(folder: Path) -> None:
    """A data set of the Hub may have several configurations: other records each, which nobody wants together."""
    configurations = configurations_of(folder)
    if len(configurations) > 1:
        raise InputError(
            f"the data set has {len(configurations)} configurations: {', '.join(configurations)}",
            where=folder,
            why="each of them has other records",
            fix=f"data.path=null data.hub_id={folder} data.hub_config={next(iter(configurations))}, or data.path=FILE",
        )


def configurations_of(folder: Path) -> list[str]:
    """Names of the configurations in the front matter of a folder's README.md."""
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        front = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
        return [str(one["config_name"]) for one in front.get("configs", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, yaml.YAMLError):
        return []


def _is_of_records(path: Path) -> bool:
    suffix = suffix_of(path)
    return path.is_file() and (suffix in READERS or suffix in COLUMNAR) and path.name not in _NO_RECORDS


def suffix_of(path: Path) -> str:
    """The suffix that says the kind of a file, without that of its compression."""
    name = path.name.lower()
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def _fix_of_kind(path: Path) -> str:
    if suffix_of(path) in (".xlsx", ".xls", ".ods"):
        target = beside(path, "sheet", ".csv")
        convert = (
            "import sys, pandas; pandas.read_excel(sys.argv[1], dtype=str, keep_default_na=False)"
            ".to_csv(sys.argv[2], index=False)"
        )
        package = {".xlsx": "openpyxl", ".xls": "xlrd", ".ods": "odfpy"}[suffix_of(path)]
        return (
            "save the sheet as 'CSV UTF-8' in the program that made it; or "
            f"`{module_line('pip', 'install', package)} && {python_line(convert, path, target)}`"
            f"; then use {target}"
        )
    return _KINDS_FIX


def _of_a_plain_copy(content: bytes, path: Path, problem: InputError) -> InputError:
    """A problem whose fix is a command, for a file that such a command cannot read: it takes a plain copy."""
    source = shlex.quote(str(path))
    copy = plain_copy(content, path) if f" {source}" in problem.fix and "`" in problem.fix else None
    if copy is None:
        return problem
    command, target = copy
    head, tick, rest = problem.fix.partition("`")
    fix = f"{head}{tick}{command} && {rest.replace(f' {source}', f' {shlex.quote(str(target))}')}"
    return InputError(problem.what, where=problem.where, why=problem.why, fix=fix)


def _near(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "check the path"

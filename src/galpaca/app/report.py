"""``galpaca report``: one or several runs as one HTML page."""

from collections.abc import Sequence
from pathlib import Path

from galpaca.app.console import make_console
from galpaca.errors import InputError
from galpaca.files.atomic import replace_file
from galpaca.report.page import render
from galpaca.report.run import load_runs
from galpaca.runs.found import with_runs_below


def report(runs: Sequence[Path], out: Path | None = None) -> None:
    """Writes the page and prints its path.

    Args:
        runs: run folders, finished or not, or folders with runs below them.
        out: output file; default: ``report.html`` in the run folder, or in the working directory for several runs.

    Raises:
        InputError: a folder is not a run, or the file cannot be written or is not a report.
    """
    page = write_report(runs, out)
    make_console().print(f"{page} ({page.stat().st_size / 1e6:.1f} MB) opens in any browser, without a network")


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Writes the page, without printing.

    Returns:
        Path of the page.
    """
    loaded = load_runs(with_runs_below(runs))
    page = out or (loaded[0].folder.report if len(loaded) == 1 else Path("report.html"))
    check_replaceable(page, "galpaca report")
    content = render(loaded)
    try:
        replace_file(page, content)
    except OSError as error:
        raise InputError(f"cannot write the page: {error.strerror}", where=page, fix="choose another --out") from None
    return page


def check_replaceable(page: Path, generator: str) -> None:
    """Checks that a page may be written here, replacing only a page of the same command.

    Args:
        generator: the command that writes such pages.

    Raises:
        InputError: something else is there.
    """
    if page.is_dir():
        raise InputError("expected a file, found a folder", where=page, fix=f"--out {page / 'report.html'}")
    if page.is_file():
        with page.open(encoding="utf-8", errors="replace") as file:
            if f'content="{generator}"' not in file.read(2000):
                raise InputError(
                    f"exists but was not written by {generator}",
                    where=page,
                    fix="choose another --out, or delete the file",
                )

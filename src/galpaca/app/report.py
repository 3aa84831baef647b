"""``galpaca report``: a run, or several drawn over each other, as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from galpaca.app.console import make_console
from galpaca.errors import InputError
from galpaca.files.atomic import replace_file


def report(runs: Sequence[Path], out: Path | None = None) -> None:
    """Writes the page and says where.

    Args:
        runs: folders of runs, alive or not.
        out: the file; by default ``report.html`` in the run's folder, or here for several runs.

    Raises:
        InputError: a folder is no run, or the file cannot be written, or is not a report.
    """
    page = write_report(runs, out)
    make_console().print(f"{page} ({page.stat().st_size / 1e6:.1f} MB) opens in any browser, and needs no network")


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """The same, without a word.

    Returns:
        The page.
    """
    from galpaca.report.page import render
    from galpaca.report.run import load_runs

    loaded = load_runs(runs)
    page = out or (loaded[0].folder.report if len(loaded) == 1 else Path("report.html"))
    check_replaceable(page, "galpaca report")
    content = render(loaded)
    try:
        replace_file(page, content)
    except OSError as error:
        raise InputError(
            f"the page cannot be written: {error.strerror}", where=page, fix="--out FILE names another place"
        ) from None
    return page


def check_replaceable(page: Path, generator: str) -> None:
    """Args:
        generator: the command that writes such pages.

    Raises:
        InputError: something else is there.
    """
    if page.is_dir():
        raise InputError("a folder, where the page is to be a file", where=page, fix=f"--out {page / 'report.html'}")
    if page.is_file():
        with page.open(encoding="utf-8", errors="replace") as file:
            if f'content="{generator}"' not in file.read(2000):
                raise InputError(
                    f"the file is there and is no {generator.removeprefix('galpaca ')}",
                    where=page,
                    fix="--out FILE names another, or remove it",
                )

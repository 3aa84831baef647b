"""The browser of the tests sees what it should."""

from pathlib import Path

import pytest

from browser.visits import Open

PAGE = """<!doctype html><title>page</title><p id="text">before</p>
<script>
const isDark = matchMedia('(prefers-color-scheme: dark)').matches
document.getElementById('text').textContent = isDark + ' ' + innerWidth
</script>"""


def test_a_page_runs_its_script_in_the_requested_shape(tmp_path: Path, open_page: Open) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE)
    visit = open_page(page, width=390, dark=True)
    assert visit.page.text_content("#text") == "true 390"
    assert visit.errors == []
    assert visit.requests == [page.as_uri()]


def test_errors_and_exceptions_are_seen(tmp_path: Path, open_page: Open) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('failed'); console.warn('warned'); null.thing</script>")
    visit = open_page(page)
    assert visit.errors[0] == "failed"
    assert "null" in visit.errors[1]
    assert visit.warnings == ["warned"]


@pytest.mark.parametrize("address", ["https://example.invalid/a.js", "http://10.0.0.1/a.js"])
def test_a_request_to_another_host_is_cut_off_and_seen(tmp_path: Path, open_page: Open, address: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<script src="{address}"></script>')
    visit = open_page(page)
    assert visit.foreign == [address]
    visit.foreign.clear()  # else this test would fail, as it should

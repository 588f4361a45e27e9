"""The picture of the report in docs is of today's page."""

from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

page = import_module("harness.views.page")  # `harness.views.page` itself is its function
PICTURE = Path(__file__).parents[1] / "docs" / "report.png"


def test_the_picture_in_docs_is_of_the_page_as_it_is():
    with Image.open(PICTURE) as image:
        assert image.size == (1440, 900)
        mark = image.info.get("page")
    assert mark == page.version(), "scripts or style of the page have changed: draw docs/report.png anew, make picture"


@pytest.mark.parametrize("name", ["page.html", "page.css", "charts.css", "map.js", "app.js"])
def test_the_version_of_the_page_changes_with_each_of_its_files(name, monkeypatch):
    before, read = page.version(), page.asset
    page.version.cache_clear()
    monkeypatch.setattr(page, "asset", lambda asked: read(asked) + (" " if asked == name else ""))
    assert page.version() != before
    page.version.cache_clear()

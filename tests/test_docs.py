"""Files that the documents name are there."""

from __future__ import annotations

import re

import pytest

from tests.cli_helpers import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
IN_THE_CHECKOUT = re.compile(r"\b(?:tests|lit_condense|benchmarks|scripts|configs|docs)/[\w/.-]+\.(?:py|md|yaml|sh)\b")
IN_THE_PACKAGE = re.compile(r"`([a-z_]+/[\w/]+\.py)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page):
    text = page.read_text()
    assert [name for name in IN_THE_CHECKOUT.findall(text) if not (REPOSITORY / name).is_file()] == []
    named = IN_THE_PACKAGE.findall(text)
    assert [n for n in named if not any((top / n).is_file() for top in (REPOSITORY, REPOSITORY / "lit_condense"))] == []

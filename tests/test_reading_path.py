"""What the README lists to read is what runs in a training step, and no more."""

import pytest

from tests.support.reading_path import ROOT, ROW, measure, rewritten

MOST_FILES, MOST_LINES, MOST_CALLS = 15, 450, 80


@pytest.fixture(scope="module")
def path():
    return measure()


def test_a_step_stays_readable(path):
    assert len(path.lines) <= MOST_FILES
    assert sum(path.lines.values()) <= MOST_LINES
    assert path.calls <= MOST_CALLS


def test_the_readme_lists_the_files_that_a_step_enters(path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {row[1] for row in ROW.finditer(readme)} == set(path.lines)
    assert rewritten(readme, path) == readme, "run python -m tests.support.reading_path"

"""The README keeps its promises: each of its commands and snippets runs here, its counts are counted.

An HTML comment before each block says how: ``<!-- test: run -->`` runs it as it stands; ``<!-- test: run with OPTIONS
-->`` appends options that shorten it; ``<!-- test: replace A -> B -->`` shortens a snippet; ``<!-- test: .ci/run -->``
marks the set-up commands, which .ci/run runs to the letter in fresh environments; ``<!-- output -->`` is what a
command printed.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import tinynet as tn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(README)]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
RUN_ELSEWHERE = {
    "python examples/train_fashion.py --recipe all --seed 1"
}  # in test_train_fashion.py: half a minute


def marked(language, prefix):
    return [
        pytest.param(block, id=block["text"].splitlines()[0][:60])
        for block in BLOCKS
        if block["language"] == language and (block["mark"] or "").startswith(prefix)
    ]


def test_every_block_is_marked():
    marks = {
        "sh": ("test: run", "test: .ci/run", "test: replaced by test_predict_image.py"),
        "python": ("test: run", "test: replace"),
        "text": ("output",),
    }
    for block in BLOCKS:
        assert (block["mark"] or "").startswith(marks[block["language"]]), block["text"]
    assert len(marked("sh", "test: run")) >= 3
    assert len(marked("python", "test:")) >= 2


def test_the_set_up_commands_are_those_of_ci():
    (first,), (second,) = (block.values[0]["text"].splitlines() for block in marked("sh", "test: .ci/run"))
    assert first == "python -m pip install -e . && python examples/train_fashion.py"
    assert second == "python -m pip install -e '.[test]' && python -m pytest -n 2"
    assert f"{{ {second}; }}" in CI
    install, _, train = first.partition(" && ")
    assert f"{{ {install.replace('install', 'install --quiet')} && {train} --recipe" in CI


@pytest.mark.data
@pytest.mark.parametrize("block", marked("sh", "test: run"))
def test_commands_run(block, fashion_mnist, tmp_path):
    for line in block["text"].splitlines():
        if line in RUN_ELSEWHERE:
            continue
        command = shlex.split(line, comments=True)
        assert command[0] == "python"
        command = [sys.executable, *command[1:]]
        shorten = block["mark"].partition("run with ")[2]
        command += shlex.split(shorten.replace("TMP", str(tmp_path)))
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.data
@pytest.mark.parametrize("block", marked("python", "test:"))
def test_snippets_run(block, fashion_mnist, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = block["text"]
    for replacement in (
        block["mark"].partition("replace ")[2].split(", ") if "replace" in block["mark"] else []
    ):
        old, new = replacement.split(" -> ")
        assert old in text
        text = text.replace(old, new)
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", README):
        path = target[0] or target[1]
        if not path.startswith("http"):
            assert (ROOT / path.partition("#")[0]).exists(), path


def test_every_backward_is_directly_below_its_forward():
    """The finding rule, held for every layer and loss."""
    import ast

    checked = 0
    for path in [*(ROOT / "tinynet" / "layers").rglob("*.py"), ROOT / "tinynet" / "losses.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                if "backward" in methods:
                    assert methods[methods.index("backward") - 1] == "forward", (path.name, node.name)
                    checked += 1
    assert checked >= len(tn.layers.__all__) + 4


def test_the_table_names_every_recipe():
    for name in tn.recipes.RECIPES:
        assert re.search(rf"^\| `{name}` \|", README, re.MULTILINE)


def test_the_benchmarks_figures_are_those_of_the_results():
    """The rows of the section's tables stand word by word in a report that is committed."""
    section = README.partition("## How fast")[2].partition("\n## ")[0]
    reports = re.findall(r"\]\((benchmarks/results/[^)]+\.md)\)", section)
    text = (ROOT / reports[0]).read_text(encoding="utf-8")
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) >= 6
    for row in rows:
        assert row in text, row

"""The fuzzer's corpus, read again: inputs that once reached new code, or were once a defect."""

import pytest

from tests.fuzz.run import CORPUS, NAMES
from tests.fuzz.targets import TARGETS

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_a_corpus():
    assert {path.parent.name for path in FILES} == set(NAMES) == set(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_read_or_refused_as_documented(name):
    for path in FILES:
        if path.parent.name == name:
            TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_the_other_targets_are_refused_too(name):
    for path in FILES:
        TARGETS[name](path.read_bytes())

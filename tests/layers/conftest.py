"""Layers compute with the chosen engine, as they do in a run, though these tests call them outside one."""

import pytest

from tinynet.engines.choice import running


@pytest.fixture(autouse=True)
def chosen_engine():
    with running():
        yield

"""Fixtures: the made-up data set, the server on loopback, an environment without this machine's settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from tests.support.loopback import MadeUp, Server
from tinynet.datasets import fashion_mnist


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def made_up() -> MadeUp:
    return MadeUp()


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch, made_up: MadeUp) -> MadeUp:
    """Make fashion_mnist.load look for the made-up files, and only in the sources of the test."""
    monkeypatch.setattr(fashion_mnist, "FILES", made_up.specs)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDERS", ())
    return made_up


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hide this machine's settings from the tests, except from those that need the real data."""
    if request.node.get_closest_marker("data"):
        return
    for name in list(os.environ):
        if name.startswith("TINYNET_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

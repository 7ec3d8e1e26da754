"""A small made-up data set, and a real HTTP server on loopback to fetch it from.

Their fixtures are in conftest.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinynet.datasets import fashion_mnist
from tinynet.datasets.download import FileSpec
from tinynet.datasets.http import Limits

REPOSITORY = Path(__file__).parents[2]

FAST = Limits(connect=10, read=10, attempts=3, pause=0.01)
SHORT = dataclasses.replace(FAST, read=0.5)  # for servers that make the client wait this long

Behaviour = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the test registered for the path; of several behaviours, each request uses up one."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer takes 40 ms longer
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            behaviours = self.server.routes.get(self.path, [status(404)])
            behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        with contextlib.suppress(OSError):  # the client may hang up
            behaviour(self)

    def head(self, code: int = 200, **headers: str | int) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.dripped = 0  # bytes of all that `drip` sent
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def on(self, path: str, *behaviours: Behaviour) -> None:
        self.routes["/" + path] = list(behaviours)


# What a server may do, as functions of the request handler.


def send(data: bytes, **headers: str | int) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.head(Content_Length=len(data), **headers)
        handler.wfile.write(data)

    return behave


def send_part(data: bytes, announce: bool = True) -> Behaviour:
    """Half of the data, then the connection ends."""

    def behave(handler: Handler) -> None:
        handler.head(**({"Content-Length": len(data)} if announce else {"Connection": "close"}))
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True

    return behave


def send_chunked(data: bytes, whole: bool = True) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.head(Transfer_Encoding="chunked")
        for start in range(0, len(data), 1000):
            piece = data[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = not whole

    return behave


def send_without_end(beginning: bytes) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.head(Connection="close")
        handler.close_connection = True
        handler.wfile.write(beginning)
        while not handler.server.closing.is_set():
            handler.wfile.write(bytes(1 << 16))

    return behave


def stall(data: bytes, after: int, announce: int | None = None) -> Behaviour:
    """Part of the data, then nothing, with the connection open. ``after=-1``: not even headers."""

    def behave(handler: Handler) -> None:
        if after >= 0:
            handler.head(Content_Length=announce or len(data))
            handler.wfile.write(data[:after])
            handler.wfile.flush()
        handler.server.closing.wait(30)
        handler.close_connection = True

    return behave


def drip(data: bytes, pause: float) -> Behaviour:
    """A byte now and then, so that no read of the socket times out."""

    def behave(handler: Handler) -> None:
        handler.head(Content_Length=len(data))
        for i in range(len(data)):
            handler.wfile.write(data[i : i + 1])
            handler.server.dripped += 1
            if handler.server.closing.wait(pause):
                return

    return behave


def drip_headers(handler: Handler) -> None:
    """Endless headers, a byte now and then."""
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b"x")


def reset(handler: Handler) -> None:
    """End the connection with RST, as a crashed server or a middlebox does."""
    import socket

    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def status(code: int, **headers: str | int) -> Behaviour:
    def behave(handler: Handler) -> None:
        body = b"<html>no</html>"
        handler.head(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return behave


def redirect(location: str) -> Behaviour:
    return status(302, Location=location)


class MadeUp:
    """Random bytes in the format of Fashion-MNIST: 100 kB, 12 training images and 3 test images."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        self.arrays = [
            draw.integers(0, 256, (12, 90, 90), np.uint8),
            draw.integers(0, 10, 12, np.uint8),
            draw.integers(0, 256, (3, 90, 90), np.uint8),
            draw.integers(0, 10, 3, np.uint8),
        ]
        self.content: dict[str, bytes] = {}  # by name, without .gz
        self.packed: dict[str, bytes] = {}  # by name, with .gz
        specs = []
        for real, array in zip(fashion_mnist.FILES, self.arrays, strict=True):
            sizes = struct.pack(f">{array.ndim}I", *array.shape)
            raw = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            packed = gzip.compress(raw, 9, mtime=1)
            hashes = (hashlib.sha256(data).hexdigest() for data in (packed, raw))
            specs.append(FileSpec(real.name, len(packed), next(hashes), len(raw), next(hashes)))
            self.content[real.name] = raw
            self.packed[real.name + ".gz"] = packed
        self.specs = tuple(specs)

    def put_in(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.packed.items():
            (folder / name).write_bytes(data)
        return folder

    def serve(self, server: Server, folder: str = "") -> None:
        for name, data in self.packed.items():
            server.on(folder + name, send(data))

    @property
    def json(self) -> str:
        return json.dumps([dataclasses.asdict(spec) for spec in self.specs])


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a Python process that imports this tinynet."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more


def until(condition: Callable[[], bool], seconds: float = 600.0) -> bool:
    """Wait until another process has done something."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


# For a child process that loads the made-up set. Arguments: the cache folder, the specs as JSON, and the mirror.
LOAD = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from tinynet.datasets import fashion_mnist
from tinynet.datasets.download import FileSpec
fashion_mnist.FILES = tuple(FileSpec(**spec) for spec in json.loads(sys.argv[2]))
fashion_mnist.MIRRORS = tuple(sys.argv[3:])
fashion_mnist.SYSTEM_FOLDERS = ()
(x_train, y_train), (x_test, y_test) = fashion_mnist.load(sys.argv[1])
print(x_train.shape, int(x_train.sum()), int(y_test.sum()))
"""

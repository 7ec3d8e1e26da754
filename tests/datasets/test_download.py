"""The downloader against a real HTTP server on loopback that fails in all the ways that servers do."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.faults import full_disk, read_only
from tests.support.loopback import (
    FAST,
    LOAD,
    SHORT,
    Behaviour,
    MadeUp,
    Server,
    child_environment,
    drip,
    drip_headers,
    python,
    redirect,
    reset,
    send,
    send_chunked,
    send_part,
    send_without_end,
    stall,
    status,
    until,
)
from tinynet.datasets.download import BadFileError, DownloadError, fetch, unpack
from tinynet.datasets.http import Limits, TransferError, check_redirect

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals, terminals or permissions")
FIRST = "train-images-idx3-ubyte.gz"
PAGE = b"<!DOCTYPE html><title>Sign in</title>" + b"<p>Welcome to the airport</p>" * 5000


def fetch_from(
    made_up: MadeUp, cache: Path, *mirrors: str, limits: Limits = FAST, **more: Any
) -> dict[str, bytes]:
    return fetch("The set", made_up.specs, cache, mirrors=mirrors, limits=limits, **more)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause between two attempts, none of which is made."""
    seconds: list[float] = []
    monkeypatch.setattr(
        "tinynet.datasets.http.time", SimpleNamespace(monotonic=time.monotonic, sleep=seconds.append)
    )
    return seconds


def failure(made_up: MadeUp, cache: Path, *mirrors: str, limits: Limits = FAST, **more: Any) -> str:
    """The message of the error that ends fetching; checks that no bad file was kept."""
    with pytest.raises(DownloadError) as error:
        fetch_from(made_up, cache, *mirrors, limits=limits, **more)
    assert isinstance(error.value, OSError)
    for path in cache.glob("*") if cache.is_dir() else ():
        assert path.read_bytes() == made_up.packed[path.name]
    return str(error.value)


# Mirrors that work


def test_good_files_are_returned_and_kept(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    made_up.serve(server)
    cache = tmp_path / "new" / "folder"
    assert fetch_from(made_up, cache, server.url) == made_up.content
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == made_up.packed
    assert len(server.requests) == 4
    assert all(headers["Accept-Encoding"] == "identity" for _, headers in server.requests)
    assert fetch_from(made_up, cache, server.url) == made_up.content
    assert len(server.requests) == 4  # the second time, they come from the cache


def test_only_what_is_missing_is_fetched(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    made_up.serve(server)
    made_up.put_in(tmp_path)
    (tmp_path / FIRST).unlink()
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content
    assert server.paths == ["/" + FIRST]


@pytest.mark.parametrize("trailing", ["", "/"])
def test_a_mirror_in_a_folder(made_up: MadeUp, server: Server, tmp_path: Path, trailing: str) -> None:
    made_up.serve(server, "data/fashion/")
    assert fetch_from(made_up, tmp_path, server.url + "data/fashion" + trailing) == made_up.content


def test_another_gzip_of_the_same_content_is_good(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    for name, data in made_up.content.items():
        server.on(name + ".gz", send(gzip.compress(data, 1)))
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content


@pytest.mark.parametrize("how", ["gzipped on the fly", "declared", "chunked", "redirected"])
def test_ways_to_send_a_good_file(made_up: MadeUp, server: Server, tmp_path: Path, how: str) -> None:
    made_up.serve(server)
    data = made_up.packed[FIRST]
    behaviour = {
        "gzipped on the fly": send(gzip.compress(data), Content_Encoding="gzip"),
        "declared": send(data, Content_Encoding="x-gzip"),
        "chunked": send_chunked(data),
        "redirected": redirect("/elsewhere"),
    }[how]
    server.on(FIRST, behaviour)
    server.on("elsewhere", redirect(server.url + "at-last"))
    server.on("at-last", send(data))
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content
    assert (tmp_path / FIRST).read_bytes() == data


# Failures that can pass


@pytest.mark.parametrize(
    "trouble",
    [
        status(503),
        status(429),
        status(500),
        reset,
        send_chunked(b"\x1f\x8b" + PAGE, whole=False),
        stall(PAGE, -1),
        "half, then nothing",
        "half, then the end",
    ],
    ids=["503", "429", "500", "reset", "chunked-cut", "stalled", "stalled-later", "cut"],
)
def test_trouble_and_then_a_good_file(
    made_up: MadeUp, server: Server, tmp_path: Path, trouble: Behaviour | str
) -> None:
    made_up.serve(server)
    data = made_up.packed[FIRST]
    if isinstance(trouble, str):
        trouble = stall(data, len(data) // 2) if trouble == "half, then nothing" else send_part(data)
    server.on(FIRST, trouble, send(data))
    assert fetch_from(made_up, tmp_path, server.url, limits=SHORT) == made_up.content
    assert server.paths.count("/" + FIRST) == 2


def test_trouble_that_does_not_pass_ends_with_the_mirror(
    made_up: MadeUp, server: Server, tmp_path: Path
) -> None:
    made_up.serve(server, "good/")
    made_up.serve(server, "bad/")
    server.on("bad/" + FIRST, status(503))
    assert fetch_from(made_up, tmp_path, server.url + "bad", server.url + "good") == made_up.content
    assert server.paths[:4] == ["/bad/" + FIRST] * 3 + ["/good/" + FIRST]


# Failures that can't pass: one request, then the next mirror


def bad_behaviours(data: bytes, same_size: int = 0) -> dict[str, tuple[Behaviour, str]]:
    corrupted = bytearray(data)
    corrupted[len(data) // 2] ^= 1
    return {
        "403": (status(403), "HTTP 403 Forbidden"),
        "404": (status(404), "HTTP 404 Not Found"),
        "no content": (status(204), "HTTP 204"),
        "cut unannounced": (send_part(data, announce=False), "ends too early"),
        "corrupted": (send(bytes(corrupted)), "expected .* found .* (damaged|other content)"),
        "other data of that size": (send(gzip.compress(bytes(same_size))), "found .* other content"),
        "other data": (send(gzip.compress(b"other data")), "found .* other content"),
        "empty": (send(b""), "found 0 bytes .* nothing"),
        "too long, announced": (send(data + bytes(500_000)), "sent more than"),
        "too long, unannounced": (send_without_end(data), "sent more than"),
        "gzip bomb": (send(gzip.compress(bytes(50_000_000))), "a gzip file of more than"),
        "sign-in page": (send(PAGE, Content_Type="text/html"), "a web page, .*requires a sign-in"),
        "redirect to a sign-in page": (redirect("/sign-in"), "a web page, .*requires a sign-in"),
        "redirects in a circle": (redirect("/" + FIRST), "Exceeded 5 redirects"),
        "redirect to a file": (redirect("file:///etc/passwd"), "No connection adapters .*file:///etc"),
    }


@pytest.mark.parametrize("kind", list(bad_behaviours(b"data")))
def test_a_bad_file_is_not_kept_and_the_next_mirror_is_asked(
    made_up: MadeUp, server: Server, tmp_path: Path, kind: str
) -> None:
    behaviour, message = bad_behaviours(made_up.packed[FIRST], made_up.specs[0].raw_size)[kind]
    made_up.serve(server)
    server.on("sign-in", send(PAGE))
    server.on(FIRST, behaviour)
    text = failure(made_up, tmp_path, server.url)
    line = next(line for line in text.splitlines() if line.startswith(f"  {server.url}") and FIRST in line)
    assert re.search(message, line), line
    assert server.paths.count("/" + FIRST) == (6 if "circle" in kind else 1)  # no second attempt

    made_up.serve(server, "good/")
    assert fetch_from(made_up, tmp_path, server.url, server.url + "good") == made_up.content


@pytest.mark.parametrize("what", ["a body", "a body, slowly", "headers"])
def test_a_server_that_drips_is_given_up(made_up: MadeUp, server: Server, tmp_path: Path, what: str) -> None:
    """Each read of the socket brings something, so the socket's timeout does not help."""
    data = made_up.packed[FIRST]
    behaviours = {"a body": drip(data, 0.02), "a body, slowly": drip(data, 0.4), "headers": drip_headers}
    server.on(FIRST, behaviours[what])
    limits = dataclasses.replace(FAST, connect=0.2, read=0.8)
    text = failure(made_up, tmp_path, server.url, limits=limits)
    assert "too slow: under 262,144 bytes in 1 s" in text
    assert server.paths == ["/" + FIRST]
    made_up.serve(server, "good/")
    mirrors = server.url, server.url + "good"
    assert fetch_from(made_up, tmp_path, *mirrors, limits=limits) == made_up.content


def test_a_server_that_stays_silent_is_given_up(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    server.on(FIRST, stall(b"", -1))
    text = failure(made_up, tmp_path, server.url, limits=SHORT)
    assert re.search(r"the connection broke: .*Read timed out.* \(3 attempts\)", text), text
    assert server.paths == ["/" + FIRST] * 3


def test_what_cannot_be_reached_is_asked_once_and_at_once(
    made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def note(host: Any, *arguments: Any, **more: Any) -> Any:
        looked_up.append(host)
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound but not listening: refused
        refused = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        text = failure(made_up, tmp_path, refused, "http://no-such-host.invalid/", "ftp://x/", "nonsense")
    assert waits == []
    assert looked_up.count("127.0.0.1") == 1
    assert looked_up.count("no-such-host.invalid") == 1
    assert "efused" in text or "No connection could be made" in text
    assert "http://no-such-host.invalid/: no connection" in text
    assert "ftp://x/: no connection: No connection adapters were found" in text
    assert "nonsense: no connection: Invalid URL" in text


@pytest.mark.parametrize(
    ("url", "location", "refused"),
    [
        ("https://a/x", "/y", False),
        ("https://a/x", "//b/y", False),
        ("https://a/x", "https://b/y", False),
        ("http://a/x", "https://b/y", False),
        ("http://a/x", "http://b/y", False),
        ("https://a/x", "http://a/x", True),
        ("https://a/x", "HTTP://a/x", True),
        ("https://a/x", " http://a/x", True),
        ("https://a/x", "ht\ttp://a/x", True),
        ("https://a/x", "file:///etc/passwd", True),
    ],
)
def test_no_way_back_from_https(url: str, location: str, refused: bool) -> None:
    import requests

    response = requests.Response()
    response.url, response.status_code, response.headers["Location"] = url, 302, location
    response.raw = io.BytesIO()
    error = pytest.raises(TransferError, match="from https to .* refused")
    with error if refused else contextlib.nullcontext():
        check_redirect(response)


def test_a_redirect_whose_body_has_no_end(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    """The body is not read: requests would read all of it into memory before following the redirect."""
    ended = threading.Event()

    def behave(handler: Any) -> None:
        handler.head(302, Location="/good/" + FIRST, Connection="close")
        handler.close_connection = True
        try:
            while not handler.server.closing.is_set():
                handler.wfile.write(bytes(1 << 16))
        except OSError:
            ended.set()  # the client has hung up

    made_up.serve(server)
    made_up.serve(server, "good/")
    server.on(FIRST, behave)
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content
    assert ended.wait(300)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_over_tls(made_up: MadeUp, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to plain http is refused, and so is an untrusted certificate."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with Server() as secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        thread = threading.Thread(target=secure.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = secure.url.replace("http:", "https:")
        try:
            made_up.serve(secure)
            cache = tmp_path / "cache"
            assert "CERTIFICATE_VERIFY_FAILED" in failure(made_up, cache, url)
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
            secure.on(FIRST, redirect(server.url + FIRST))
            made_up.serve(server)
            assert "redirected from https to http:" in failure(made_up, cache, url)
            assert server.requests == []
            made_up.serve(secure)
            assert fetch_from(made_up, cache, url) == made_up.content
        finally:
            secure.shutdown()
            thread.join()


# The cache


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "page", "huge", "folder"])
def test_a_damaged_file_in_the_cache_is_replaced(
    made_up: MadeUp, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    made_up.serve(server)
    made_up.put_in(tmp_path)
    path, data = tmp_path / FIRST, bytearray(made_up.packed[FIRST])
    if damage == "changed":
        data[len(data) // 2] ^= 1
    path.write_bytes(
        {"cut": data[:-9], "empty": b"", "page": PAGE, "huge": data + bytes(1_000_000)}.get(damage, data)
    )
    if damage == "folder":
        path.unlink()
        path.mkdir()
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content
    assert f"not using {path}" in capsys.readouterr().err
    assert server.paths == ["/" + FIRST]
    if damage != "folder":
        assert path.read_bytes() == made_up.packed[FIRST]
        assert sorted(os.listdir(tmp_path)) == sorted(made_up.packed)


def test_decompressed_files_put_there_by_hand(made_up: MadeUp, tmp_path: Path) -> None:
    for name, data in made_up.content.items():
        (tmp_path / name).write_bytes(data)
    assert fetch_from(made_up, tmp_path) == made_up.content


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("inside", [False, True], ids=["in the folder", "in one of its own name"])
@pytest.mark.parametrize("dotted", [False, True], ids=["usual name", "dotted name"])
def test_files_as_unpackers_leave_them(
    made_up: MadeUp, tmp_path: Path, ending: str, inside: bool, dotted: bool
) -> None:
    for name, data in (made_up.packed if ending else made_up.content).items():
        name = name.replace("-idx", ".idx") if dotted else name
        path = tmp_path / name / name if inside else tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert fetch_from(made_up, tmp_path) == made_up.content


@pytest.mark.parametrize(
    ("kind", "begins"),
    [("xz", b"\xfd7zXZ\0"), ("bzip2", b"BZh9"), ("zip", b"PK\3\4"), ("zstd", b"(\xb5/\xfd")],
)
def test_other_compression_is_named(made_up: MadeUp, tmp_path: Path, kind: str, begins: bytes) -> None:
    made_up.put_in(tmp_path)
    data = begins + bytes(99)
    for content, found in (
        (data, f"no gzip file but {kind} data"),
        (gzip.compress(data), f"{kind} data inside gzip"),
    ):
        (tmp_path / FIRST).write_bytes(content)
        with pytest.raises(DownloadError, match=f"{found}; decompress it first"):
            fetch_from(made_up, tmp_path)


def test_gzip_in_gzip_is_taken_and_once_more_is_named(made_up: MadeUp, tmp_path: Path) -> None:
    made_up.put_in(tmp_path)
    twice = gzip.compress(made_up.packed[FIRST])
    (tmp_path / FIRST).write_bytes(twice)
    assert fetch_from(made_up, tmp_path) == made_up.content
    (tmp_path / FIRST).write_bytes(gzip.compress(twice))
    with pytest.raises(DownloadError, match="gzip data inside gzip; decompress it first"):
        fetch_from(made_up, tmp_path)


def test_other_folders_are_read_and_never_written(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    made_up.serve(server)
    system = made_up.put_in(tmp_path / "system")
    (system / FIRST).write_bytes(b"damaged")
    cache = tmp_path / "cache"
    assert fetch_from(made_up, cache, server.url, folders=[system]) == made_up.content
    assert (system / FIRST).read_bytes() == b"damaged"
    assert os.listdir(cache) == [FIRST]
    assert server.paths == ["/" + FIRST]


def test_a_cache_that_cannot_be_written_is_done_without(
    made_up: MadeUp, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up.serve(server)
    (tmp_path / "file").write_bytes(b"")
    assert fetch_from(made_up, tmp_path / "file" / "cache", server.url) == made_up.content
    assert capsys.readouterr().err.count("can't keep the files in") == 1


@posix
def test_a_read_only_cache_is_done_without(
    made_up: MadeUp,
    server: Server,
    tmp_path: Path,
    reachable_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made_up.serve(server)
    fetch_from(made_up, tmp_path, server.url)  # so that everything is imported
    with read_only(reachable_folder):
        assert fetch_from(made_up, reachable_folder, server.url) == made_up.content
    assert capsys.readouterr().err.count("Permission denied") == 1
    assert os.listdir(reachable_folder) == []


@posix
@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_leaves_no_part_of_a_file(
    made_up: MadeUp, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    """The files in the cache stay as they are, damaged or not, and the data is still returned."""
    made_up.serve(server)
    fetch_from(made_up, tmp_path / "warm", server.url)
    cache = made_up.put_in(tmp_path / "cache")
    (cache / FIRST).write_bytes(b"damaged")
    capsys.readouterr()
    with full_disk(room):
        assert fetch_from(made_up, cache, server.url) == made_up.content
        assert fetch_from(made_up, tmp_path / "new", server.url) == made_up.content
    assert capsys.readouterr().err.count("can't keep the files in") == 2
    expected = made_up.packed | {FIRST: b"damaged"}
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == expected
    for path in (tmp_path / "new").iterdir():
        assert path.read_bytes() == made_up.packed[path.name]
    assert fetch_from(made_up, cache, server.url) == made_up.content
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == made_up.packed


# Content


def test_unpack_checks_the_content_and_nothing_else(made_up: MadeUp) -> None:
    spec = made_up.specs[0]
    raw = made_up.content[spec.name]
    for packed in (gzip.compress(raw, 1), gzip.compress(raw[:50]) + gzip.compress(raw[50:])):
        assert unpack(packed, spec) == (packed, raw)
    for bad in (gzip.compress(raw[:-1]), gzip.compress(raw + b"x"), raw[:-1], b"", b"\x1f\x8b", b"<html>"):
        with pytest.raises(BadFileError, match=r"expected .* bytes .* found .* bytes"):
            unpack(bad, spec)


def test_unpack_decompresses_no_more_than_the_right_file_has(made_up: MadeUp) -> None:
    bomb = gzip.compress(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BadFileError, match="a gzip file of more than"):
            unpack(bomb, made_up.specs[0])
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


# The final error


def test_the_last_error_tells_everything(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    server.on(FIRST, status(403))
    cache, system = tmp_path / "cache", tmp_path / "system"
    text = failure(
        made_up, cache, server.url, "https://no-such-host.invalid/x", folders=[system], progress=False
    )
    assert text.startswith("The set: 4 of 4 files were not found (train-images-idx3-ubyte.gz, ")
    assert f"{cache}: not there" in text
    assert f"{system}: not there" in text
    assert f"{server.url}: HTTP 403 Forbidden (train-images-idx3-ubyte.gz)" in text
    assert "https://no-such-host.invalid/x: no connection" in text
    assert f"put them into {cache}" in text
    assert "TINYNET_DATA" in text
    assert "https://no-such-host.invalid/x/t10k-labels-idx1-ubyte.gz" in text


# Offline


def test_offline_opens_no_socket_and_starts_no_program(made_up: MadeUp, tmp_path: Path) -> None:
    """Watched by Python's audit events, in a process of its own."""
    watched = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.exec', 'os.posix_spawn')):\n"
        "        print('SEEN', event, flush=True)\n"
        "sys.addaudithook(watch)\n" + LOAD.replace("load(sys.argv[1])", "load(sys.argv[1], archive=True)")
    )
    command = python(watched, tmp_path / "cache", made_up.json, "http://127.0.0.1:9/")
    environment = child_environment(TINYNET_OFFLINE="1", TINYNET_MIRROR="http://127.0.0.1:9/")
    empty = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert empty.returncode == 1
    assert "DownloadError" in empty.stderr
    assert "not asked: TINYNET_OFFLINE is set" in empty.stderr
    assert "SEEN" not in empty.stdout
    made_up.put_in(tmp_path / "cache")
    full = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert full.returncode == 0, full.stderr
    assert "SEEN" not in full.stdout


@pytest.mark.parametrize("value", ["", "0", "no", "False"])
def test_offline_can_be_switched_off(
    made_up: MadeUp, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TINYNET_OFFLINE", value)
    made_up.serve(server)
    assert fetch_from(made_up, tmp_path, server.url) == made_up.content


# Several processes


def test_two_processes_at_once(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    made_up.serve(server)
    together = threading.Barrier(2)
    data = made_up.packed[FIRST]

    def wait_for_the_other(handler: Any) -> None:
        together.wait(600)
        send(data)(handler)

    server.on(FIRST, wait_for_the_other)
    command = python(LOAD, tmp_path / "cache", made_up.json, server.url)
    processes = [
        subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=1200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert str(made_up.arrays[0].shape).encode() in outputs[0][0]
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == made_up.packed


@posix
@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
def test_a_process_ended_in_the_middle_leaves_no_bad_file(
    made_up: MadeUp, server: Server, tmp_path: Path, number: str
) -> None:
    made_up.serve(server)
    data = made_up.packed[FIRST]
    server.on("t10k-images-idx3-ubyte.gz", stall(made_up.packed["t10k-images-idx3-ubyte.gz"], 5000))
    cache = tmp_path / "cache"
    with subprocess.Popen(
        python(LOAD, cache, made_up.json, server.url), env=child_environment(), stderr=subprocess.PIPE
    ) as process:
        assert until(lambda: "/t10k-images-idx3-ubyte.gz" in server.paths)
        time.sleep(0.1)
        process.send_signal(getattr(signal, number))
        process.communicate(timeout=1200)
    assert process.returncode != 0
    assert (cache / FIRST).read_bytes() == data
    for path in cache.iterdir():
        assert path.read_bytes() == made_up.packed[path.name]
    made_up.serve(server)
    assert fetch_from(made_up, cache, server.url) == made_up.content


# The progress bar


def test_no_bar_where_there_is_no_terminal(
    made_up: MadeUp, server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made_up.serve(server)
    fetch_from(made_up, tmp_path, server.url)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"tinynet: asking 127.0.0.1:{server.server_port} for The set\n"
    fetch_from(made_up, tmp_path / "other", server.url, progress=False)
    assert capfd.readouterr() == ("", "")


@posix
def test_a_bar_on_a_terminal(made_up: MadeUp, server: Server, tmp_path: Path) -> None:
    import pty
    import termios

    made_up.serve(server)
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = python(LOAD, tmp_path / "cache", made_up.json, server.url)
    with subprocess.Popen(
        command, env=child_environment(), stderr=terminal, stdout=subprocess.DEVNULL
    ) as process:
        os.close(terminal)
        seen = b""
        with contextlib.suppress(OSError):  # on Linux, the end of a terminal is an error
            while piece := os.read(main, 4096):
                seen += piece
        os.close(main)
    assert process.returncode == 0, seen
    assert b"train-images-idx3-ubyte.gz: 100%" in seen


def test_importing_brings_in_no_network() -> None:
    """requests, tqdm and platformdirs are slow to import and not needed to read a file."""
    code = (
        "import sys; import tinynet.datasets\n"
        "print([m for m in ('requests', 'urllib3', 'tqdm', 'platformdirs') if m in sys.modules])"
    )
    done = subprocess.run(python(code), env=child_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

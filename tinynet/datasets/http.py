"""One file over HTTP: size limits, time limits, and retries of what can pass.

Nothing here knows what is in the file; `download` decides that from its hash.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    import requests

_MAX_REDIRECTS = 5
_CHUNK = 1 << 16
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}  # a server in trouble, not a refusal
_MAX_RETRY_AFTER = 10.0  # seconds; a server that asks for more is given up


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, and how often to try.

    A server may send nothing for ``read`` seconds, and must bring ``minimum_rate`` bytes a second on average
    once ``grace`` seconds are over: without that a byte now and then could hold a download for days.
    """

    connect: float = 10.0
    read: float = 30.0
    grace: float = 30.0
    minimum_rate: float = 16_384.0
    attempts: int = 3
    pause: float = 0.5  # before the second attempt, doubled for each one after it


class TransferError(Exception):
    """A file did not come.

    ``passing``: the same request may succeed in a moment.
    ``unreachable``: no other file will come from this server either.
    """

    def __init__(
        self, message: str, *, passing: bool = False, unreachable: bool = False, wait: float = 0.0
    ) -> None:
        super().__init__(message)
        self.passing = passing
        self.unreachable = unreachable
        self.wait = wait


def new_session() -> requests.Session:
    """A session that asks for the bytes as they are stored.

    With ``Accept-Encoding: gzip``, which is the default of requests, a server may gzip the file once more, or
    declare the ``.gz`` itself to be an encoding of something else.
    """
    import requests

    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "tinynet"})
    return session


def receive(
    session: requests.Session,
    url: str,
    *,
    limit: int,
    limits: Limits,
    magic: bytes = b"",
    on_progress: Callable[[int], object] = lambda received: None,
) -> bytes:
    """Download ``url`` into memory.

    Args:
        session: from `new_session`.
        url: an http or https address.
        limit: the most bytes that are accepted.
        limits: time limits and the number of attempts.
        magic: what the file begins with; anything else is refused at its first bytes.
        on_progress: called with the number of bytes received so far.
    Returns: the bytes as the server sent them; a ``Content-Encoding`` is not undone.
    Raises: TransferError: when it did not come, after the last attempt.
    """
    for attempt in range(1, limits.attempts + 1):
        try:
            return _receive_once(session, url, limit, limits, magic, on_progress)
        except TransferError as error:
            if not error.passing or error.wait > _MAX_RETRY_AFTER:
                raise
            if attempt == limits.attempts:
                # A server that failed this often is not asked for the other files.
                raise TransferError(f"{error} ({attempt} attempts)", unreachable=True) from error
            time.sleep(max(error.wait, limits.pause * 2 ** (attempt - 1)))
    raise ValueError(f"expected at least one attempt, got attempts={limits.attempts}")


def _receive_once(
    session: requests.Session,
    url: str,
    limit: int,
    limits: Limits,
    magic: bytes,
    on_progress: Callable[[int], object],
) -> bytes:
    import urllib3

    start = time.monotonic()
    try:
        with _open(session, url, limits) as response:
            announced = _check_response(response, limit)
            data = bytearray()
            while chunk := _read_some(response):
                data += chunk
                on_progress(len(data))
                if len(data) > limit:
                    raise TransferError(f"sent more than {limit:,} bytes, the most that this file can have")
                if not data.startswith(magic[: len(data)]):
                    break  # the caller says what it is
                elapsed = time.monotonic() - start
                if elapsed > limits.grace + len(data) / limits.minimum_rate:
                    raise TransferError(f"too slow: {len(data):,} bytes in {elapsed:.0f} s", unreachable=True)
            else:
                if announced is not None and len(data) != announced:
                    raise TransferError(
                        f"the connection ended after {len(data):,} of {announced:,} bytes", passing=True
                    )
            return bytes(data)
    except (OSError, ValueError, HTTPException, urllib3.exceptions.HTTPError) as error:
        raise _explained(error, limits) from error


def _read_some(response: requests.Response) -> bytes:
    """What has arrived of the body, b"" at its end.

    Not ``response.iter_content``, which undoes a Content-Encoding; and not ``raw.read``, which waits until the
    whole chunk is there, however slowly it drips in.
    """
    body: Any = response.raw
    if hasattr(body, "read1"):
        return bytes(body.read1(_CHUNK, decode_content=False))
    return bytes(body._fp.read1(_CHUNK))  # older urllib3; _fp is the response of http.client


def _open(session: requests.Session, url: str, limits: Limits) -> requests.Response:
    """Send the request and follow redirects, each of which must be as safe as the first address."""
    for _ in range(_MAX_REDIRECTS + 1):
        response = _answer(session, url, limits)
        if not response.is_redirect:
            return response
        response.close()
        url = next_address(url, response.headers["Location"])
    raise TransferError(f"more than {_MAX_REDIRECTS} redirects")


def _answer(session: requests.Session, url: str, limits: Limits) -> requests.Response:
    """The answer to one request, its body not read yet.

    Asked for in a thread of its own: a socket's timeout is one for each read, which headers that drip in never meet.
    """
    answers: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            timeout = limits.connect, limits.read
            response = session.get(url, stream=True, allow_redirects=False, timeout=timeout)
        except Exception as error:
            answers.put(error)
        else:
            answers.put(response)
            if given_up.is_set():
                response.close()

    threading.Thread(target=ask, daemon=True).start()
    seconds = limits.connect + limits.read + limits.grace
    try:
        answer = answers.get(timeout=seconds)
    except BaseException as error:  # Ctrl-C too
        given_up.set()
        if not isinstance(error, queue.Empty):
            raise
        raise TransferError(f"too slow: no whole answer within {seconds:g} s", unreachable=True) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def next_address(url: str, location: str) -> str:
    """The address that a redirect from ``url`` leads to.

    Raises: TransferError: if it leaves HTTP, or gives up the encryption that ``url`` had.
    """
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme not in ("http", "https"):
        raise TransferError(f"redirected to {target!r}, which is not an http or https address")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise TransferError(f"redirected from https to plain http ({target}), which is refused")
    return target


def _check_response(response: requests.Response, limit: int) -> int | None:
    """Refuse what the headers already rule out; return the announced number of bytes, if there is one."""
    if response.status_code != 200:
        wait = response.headers.get("Retry-After", "")
        raise TransferError(
            f"HTTP {response.status_code} {response.reason}".rstrip(),
            passing=response.status_code in _PASSING_STATUS,
            wait=float(wait) if wait.isdecimal() else 0.0,
        )
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal() or "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    if int(length) > limit:
        raise TransferError(
            f"announced {int(length):,} bytes, more than the {limit:,} that this file can have"
        )
    return int(length)


def _explained(error: Exception, limits: Limits) -> TransferError:
    """Name the error in a few words and decide whether it can pass."""
    import requests
    import urllib3

    causes = _causes(error)

    def among(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if among(requests.exceptions.ProxyError):
        return TransferError(f"the proxy failed: {causes[-1]}", unreachable=True)
    if among(urllib3.exceptions.NewConnectionError):
        # The name is unknown or nobody listens: there is nothing to wait for.
        return TransferError(f"no connection: {causes[-1]}", unreachable=True)
    if among(requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        return TransferError(f"no connection within {limits.connect:g} s", unreachable=True)
    if among(requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return TransferError(f"sent nothing for {limits.read:g} s", passing=True)
    if among(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return TransferError(f"no trusted connection: {causes[-1]}", unreachable=True)
    if isinstance(error, ValueError):  # requests: InvalidURL, MissingSchema, InvalidSchema
        return TransferError(f"not a usable address: {error}", unreachable=True)
    return TransferError(f"the connection broke: {causes[-1]}", passing=True)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what lies behind it, outermost first; requests and urllib3 wrap it several times."""
    causes = [error]
    while True:
        last = causes[-1]
        inner = [getattr(last, "reason", None), *reversed(last.args), last.__cause__, last.__context__]
        found = next((e for e in inner if isinstance(e, BaseException) and e not in causes), None)
        if found is None:
            return causes
        causes.append(found)

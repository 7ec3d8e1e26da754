"""One file over HTTP, with a limit on its size, a limit on every wait, and retries of failures that may pass.

Nothing here knows what is in the file: `download` judges that by its hash.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 18
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}  # the server is in trouble; the others refuse the request

_Pieces = queue.SimpleQueue[bytes | Exception]


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds, and how often to try.

    ``connect`` and ``read`` are requests's timeouts. They restart at each byte, so a server that sends a byte now and
    then never meets them; but the answer, and then each 256 KiB of the file, must be there within their sum.
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 3
    pause: float = 0.5  # before the second attempt; doubled for each later one


class TransferError(Exception):
    """A file did not arrive.

    ``passing``: the same request may succeed in a moment.
    ``unreachable``: this server will not send any other file either.
    """

    def __init__(self, message: str, *, passing: bool = False, unreachable: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.unreachable = unreachable


def new_session() -> requests.Session:
    """A session that asks for the bytes as they are stored, and follows safe redirects only.

    With ``Accept-Encoding: gzip``, the default of requests, a server may gzip the file once more, or declare the
    ``.gz`` itself to be an encoding of something else.
    """
    import requests

    session = requests.Session()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "tinynet"})
    session.max_redirects = 5
    session.hooks["response"] = [check_redirect]
    return session


def check_redirect(response: requests.Response, **settings: object) -> None:
    """Called by requests for each answer, before it follows a redirect.

    Raises: TransferError: if the redirect gives up encryption.
    """
    if response.is_redirect:
        response.close()  # requests would read its body, even one without an end
        target = urljoin(response.url, response.headers["Location"])
        if response.url.startswith("https:") and not target.startswith("https:"):
            raise TransferError(f"redirected from https to {target}, which is refused")


def receive(
    session: requests.Session,
    url: str,
    *,
    limit: int,
    limits: Limits,
    on_progress: Callable[[int], object] = lambda received: None,
) -> bytes:
    """Download ``url`` into memory.

    Args:
        session: from `new_session`.
        url: an http or https address.
        limit: the most bytes to accept.
        limits: time limits and the number of attempts.
        on_progress: called with the number of bytes received so far.
    Returns: the bytes as the server sent them; a ``Content-Encoding`` is not undone.
    Raises: TransferError: if the file did not arrive in the last attempt.
    """
    for attempt in range(1, limits.attempts + 1):
        try:
            return _receive_once(session, url, limit, limits, on_progress)
        except TransferError as error:
            if not error.passing:
                raise
            if attempt == limits.attempts:
                # A server that failed this often is not asked for the other files.
                raise TransferError(f"{error} ({attempt} attempts)", unreachable=True) from error
            time.sleep(limits.pause * 2 ** (attempt - 1))
    raise ValueError(f"expected at least one attempt, got attempts={limits.attempts}")


def _receive_once(
    session: requests.Session, url: str, limit: int, limits: Limits, on_progress: Callable[[int], object]
) -> bytes:
    import urllib3

    pieces: _Pieces = queue.SimpleQueue()
    given_up = threading.Event()
    timeout = limits.connect, limits.read
    # Read in another thread: this one can then stop waiting for a server that sends a byte now and then.
    threading.Thread(target=_read, args=(session, url, limit, timeout, pieces, given_up), daemon=True).start()
    data = bytearray()
    try:
        while piece := pieces.get(timeout=sum(timeout)):
            if isinstance(piece, Exception):
                raise piece
            data += piece
            on_progress(len(data))
    except queue.Empty:
        raise TransferError(
            f"too slow: under {_CHUNK:,} bytes in {sum(timeout):g} s", unreachable=True
        ) from None
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise _explained(error) from error
    finally:
        given_up.set()
    return bytes(data)


def _read(
    session: requests.Session,
    url: str,
    limit: int,
    timeout: tuple[float, float],
    pieces: _Pieces,
    given_up: threading.Event,
) -> None:
    """Put what arrives into ``pieces``, and at the end b"" or the error."""
    received = 0
    try:
        with session.get(url, stream=True, timeout=timeout) as response:
            if response.status_code != 200:
                raise TransferError(
                    f"HTTP {response.status_code} {response.reason}".rstrip(),
                    passing=response.status_code in _PASSING_STATUS,
                )
            response.raw.enforce_content_length = True  # as urllib3 2 does by default
            # Not response.iter_content, which undoes a Content-Encoding.
            while not given_up.is_set() and (piece := response.raw.read(_CHUNK, decode_content=False)):
                received += len(piece)
                if received > limit:
                    raise TransferError(f"sent more than {limit:,} bytes, the most that this file can have")
                pieces.put(piece)
        pieces.put(b"")
    except Exception as error:
        pieces.put(error)


def _explained(error: Exception) -> TransferError:
    """The error of requests or urllib3 in a few words, with the decision whether it can pass."""
    import requests
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, SSLError

    inner = error.args[0] if error.args else error
    reason = getattr(inner, "reason", error)  # without the words that urllib3 and requests put around it
    no_server = isinstance(reason, (ConnectTimeoutError, NewConnectionError, ProxyError, SSLError))
    if no_server or isinstance(error, ValueError):  # of requests: InvalidURL, MissingSchema, InvalidSchema
        return TransferError(f"no connection: {reason}", unreachable=True)
    if isinstance(error, requests.TooManyRedirects):
        return TransferError(str(error))
    return TransferError(f"the connection broke: {reason}", passing=True)

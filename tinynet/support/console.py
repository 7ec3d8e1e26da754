"""Programs and the standard streams, which may be closed, a pipe without a reader, or unable to encode a character."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PIPE_CLOSED = 141  # the status that shells report of a program that SIGPIPE ended
INTERRUPTED = 130  # and that Ctrl-C ended


def run(main: Callable[[], int], errors: tuple[type[Exception], ...] = ()) -> NoReturn:
    """Exit with the status of ``main``, or with 1 after one of these errors, which is explained on standard error.

    If standard output is a pipe that is closed before everything was written, as by ``| head -1``, the program ends
    without a message, as Unix tools do. After Ctrl-C, it ends with the exception's message. What is written to a stream
    that is missing or closed is dropped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-, or a program without a console
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, open(nowhere, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")  # a file name may not be valid text
    sys.stdout = _Output(sys.stdout)
    try:
        status: int | str = main()
    except errors as error:
        status = f"{Path(sys.argv[0]).name}: {error}"
    except KeyboardInterrupt as error:
        tell(f"\n{error or 'stopped'}")
        status = INTERRUPTED
    finally:
        sys.stdout.flush()
    sys.exit(status)


class _Output:
    """A stream that ends the program when nothing more can be written.

    Not by an OSError, which commands explain as if a file had failed, and not by SIGPIPE's default, because a download
    must survive a server that closes its connection.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return self._try(self._stream.write, text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except OSError as error:
            # What is still in the buffer must not fail again when Python closes the stream.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            sys.exit(PIPE_CLOSED if isinstance(error, BrokenPipeError) else f"standard output: {error}")


def tell(line: str) -> None:
    """Write a line to standard error, unless that is None, closed, or a pipe without a reader: work goes on."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; it may be closed, None, or an object with only ``write``."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def printable(text: str, plain: str) -> str:
    """The text if standard output can encode it, otherwise the plain one."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return plain
    return text

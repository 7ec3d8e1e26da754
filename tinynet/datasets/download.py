"""Getting a known set of files, from the nearest source that has them unharmed.

The sources in order: the cache folder, folders of the system, mirrors on the web, the archive of the Linux
distribution. Whatever the source, the SHA-256 of the decompressed content decides: the same data may have
been gzipped anew, so only the content can be compared. What is not right is not used and never reaches the
cache.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tinynet.datasets import archive, http
from tinynet.datasets.http import Limits, TransferError
from tinynet.datasets.idx import GZIP_MAGIC
from tinynet.files.atomic import write_bytes

if TYPE_CHECKING:
    import requests


class DownloadError(OSError):
    """Files could not be had from any source. The message lists each source and why it failed."""


@dataclass(frozen=True)
class FileSpec:
    """What is known of a file: upstream's gzip of it, and the content, which decides."""

    name: str  # without .gz
    gzip_size: int
    gzip_sha256: str
    raw_size: int
    raw_sha256: str

    @property
    def gzip_name(self) -> str:
        return self.name + ".gz"

    @property
    def limit(self) -> int:
        """The most bytes that any encoding of the file is allowed."""
        return max(self.gzip_size, self.raw_size) + (1 << 16)


@dataclass(frozen=True)
class Package:
    """A package of the distribution, and the folder in it that holds the files."""

    name: str
    folder: str


def fetch(
    title: str,
    files: Sequence[FileSpec],
    cache: Path,
    *,
    folders: Sequence[Path] = (),
    mirrors: Sequence[str] = (),
    package: Package | None = None,
    use_archive: bool = False,
    progress: bool = True,
    limits: Limits = Limits(),  # noqa: B008  (frozen)
) -> dict[str, bytes]:
    """Get every file, from the first source that has it unharmed.

    Files from a mirror or from the archive are kept in ``cache``, gzipped, each written completely or not at
    all; a damaged one there is replaced. Where the folder cannot be written, the data is still returned.
    With the environment variable ``TINYNET_OFFLINE`` set to 1 no socket is opened and no program started.

    Args:
        title: what the set is called in messages.
        files: the files to get.
        cache: the folder to look in first and to keep files in.
        folders: more folders to look in; they are never written to.
        mirrors: http or https addresses, each of a folder that holds the gzip files.
        package: the distribution's package of the files.
        use_archive: ask the distribution's archive if everything else failed.
        progress: show a progress bar of downloads, if standard error is a terminal.
        limits: time limits and number of attempts of downloads.
    Returns: the decompressed content by the name of the file.
    Raises: DownloadError: (an OSError) if a file is nowhere to be had.
    """
    search = _Search(title, files, cache, progress)
    search.look_in(cache)
    for folder in folders:
        search.look_in(folder)
    if search.missing and is_offline():
        search.failed("the mirrors and the archive", "not asked: TINYNET_OFFLINE is set")
    elif search.missing:
        search.ask_mirrors(mirrors, limits)
        if search.missing and package is not None:
            if use_archive:
                search.ask_archive(package)
            else:
                reason = archive.unavailable() or "not asked; pass archive=True to allow it"
                search.failed("the distribution's archive", reason)
    if search.missing:
        raise DownloadError(search.report(mirrors, package))
    return search.found


def is_offline() -> bool:
    """Whether the environment variable TINYNET_OFFLINE forbids every connection."""
    return os.environ.get("TINYNET_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


class BadFileError(ValueError):
    """The bytes are not the file; the message says how they differ."""


def unpack(data: bytes, spec: FileSpec) -> tuple[bytes, bytes]:
    """Decompress ``data`` and check it; no more memory is used than the right file needs.

    Returns: the gzip file, which differs from ``data`` where a server gzipped it once more on its way, and
        its content.
    Raises: BadFileError: if the content is not that of ``spec``.
    """
    packed = data
    for _ in range(2):
        if not packed.startswith(GZIP_MAGIC):
            break
        content = _gunzip(packed, spec, data)
        if _is_content(content, spec):
            return packed, content
        packed = content
    found = "other content" if data.startswith(GZIP_MAGIC) else f"no gzip file but {_beginning(data)}"
    raise BadFileError(_difference(data, spec, found))


def _gunzip(packed: bytes, spec: FileSpec, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            content = stream.read(spec.limit + 1)
    except EOFError:
        found = "a gzip file that ends too early"
    except (gzip.BadGzipFile, zlib.error) as error:
        found = f"a damaged gzip file ({error})"
    else:
        if len(content) <= spec.limit:
            return content
        found = f"a gzip file of more than {spec.limit:,} bytes"
    raise BadFileError(_difference(data, spec, found))


def _is_content(content: bytes, spec: FileSpec) -> bool:
    return len(content) == spec.raw_size and _sha256(content) == spec.raw_sha256


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _difference(data: bytes, spec: FileSpec, found: str) -> str:
    return (
        f"expected {spec.gzip_size:,} bytes (gzip SHA-256 {spec.gzip_sha256[:12]}, content"
        f" {spec.raw_sha256[:12]}), found {len(data):,} bytes (SHA-256 {_sha256(data)[:12]}): {found}"
    )


def _beginning(data: bytes) -> str:
    """What the data looks like to a person."""
    if not data:
        return "nothing"
    if data.lstrip()[:1] == b"<":
        return f"a web page, {data[:40]!r}; a network that asks to sign in first sends such pages"
    return f"{data[:16]!r}"


class _Search:
    """What was found so far, and why the rest was not."""

    def __init__(self, title: str, files: Sequence[FileSpec], cache: Path, progress: bool) -> None:
        self.title = title
        self.files = files
        self.cache = cache
        self.progress = progress
        self.found: dict[str, bytes] = {}
        self.failures: dict[str, dict[str, list[str]]] = {}  # source -> reason -> names of files
        self.keeps = True  # until the cache folder turns out not to be writable

    @property
    def missing(self) -> list[FileSpec]:
        return [spec for spec in self.files if spec.name not in self.found]

    def failed(self, source: str, reason: str, name: str = "") -> None:
        names = self.failures.setdefault(source, {}).setdefault(reason, [])
        if name:
            names.append(name)

    def look_in(self, folder: Path) -> None:
        """Take the files that are in ``folder``, gzipped or (put there by hand) not."""
        for spec in self.missing:
            there = False
            for path in (folder / spec.gzip_name, folder / spec.name):
                try:
                    self.found[spec.name] = _read(path, spec)
                    break
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (OSError, BadFileError) as error:
                    there = True
                    self.failed(str(folder), _reason(error), path.name)
                    _say(f"not using {path}: {_reason(error)}")
            else:
                if not there:
                    self.failed(str(folder), "not there", spec.gzip_name)

    def ask_mirrors(self, mirrors: Sequence[str], limits: Limits) -> None:
        """Download what is missing; a mirror that cannot be reached is asked once only."""
        with http.new_session() as session:
            for mirror in mirrors:
                if self.missing and self.progress:
                    _say(f"asking {urlsplit(mirror).netloc or mirror} for {self.title}")
                for spec in self.missing:
                    try:
                        packed, content = self._download(session, mirror, spec, limits)
                    except (TransferError, BadFileError) as error:
                        self.failed(mirror, str(error), spec.gzip_name)
                        if isinstance(error, TransferError) and error.unreachable:
                            break
                    else:
                        self.found[spec.name] = content
                        self.keep(spec, packed)

    def _download(
        self, session: requests.Session, mirror: str, spec: FileSpec, limits: Limits
    ) -> tuple[bytes, bytes]:
        """One file from one mirror, checked: the gzip file and its content."""
        from tqdm import tqdm

        # disable=None: only where standard error is a terminal
        off = None if self.progress else True
        with tqdm(total=spec.gzip_size, desc=spec.gzip_name, unit="B", unit_scale=True, disable=off) as bar:
            data = http.receive(
                session,
                mirror.rstrip("/") + "/" + spec.gzip_name,
                limit=spec.limit,
                limits=limits,
                on_progress=lambda received: bar.update(received - bar.n),  # back to 0 at another attempt
            )
        return unpack(data, spec)

    def ask_archive(self, package: Package) -> None:
        """Take what is missing from the distribution's package, and say so."""
        if not archive.unavailable():
            _say(f"getting {self.title} by `apt-get download {package.name}`; this installs nothing")
        try:
            with archive.unpacked(package.name) as tree:
                for spec in self.missing:
                    packed = (tree / package.folder / spec.gzip_name).read_bytes()
                    packed, content = unpack(packed, spec)
                    self.found[spec.name] = content
                    self.keep(spec, packed)
        except (archive.ArchiveError, BadFileError, OSError) as error:
            self.failed(f"the distribution's archive (package {package.name})", str(error))

    def keep(self, spec: FileSpec, packed: bytes) -> None:
        """Put a verified file into the cache; doing without is no reason to fail."""
        if not self.keeps:
            return
        try:
            write_bytes(self.cache / spec.gzip_name, packed, parents=True)
        except OSError as error:
            self.keeps = False
            _say(f"cannot keep the files in {self.cache} ({_reason(error)}); they will be fetched again")

    def report(self, mirrors: Sequence[str], package: Package | None) -> str:
        """The final error: every source, why it failed, and how to do it by hand."""
        names = ", ".join(spec.gzip_name for spec in self.missing)
        lines = [f"{self.title}: {len(self.missing)} of {len(self.files)} files could not be had ({names})."]
        for source, reasons in self.failures.items():
            for reason, files in reasons.items():
                which = f" ({', '.join(files)})" if 0 < len(files) < len(self.files) else ""
                lines.append(f"  {source}: {reason}{which}")
        lines.append(f"To put them there by hand: download the missing files and place them in {self.cache},")
        lines.append("or name a folder that has them: data_dir, or the environment variable TINYNET_DATA.")
        for mirror in [mirror for mirror in mirrors if mirror.startswith("https:")][-1:]:
            lines += [f"  {mirror.rstrip('/')}/{spec.gzip_name}" for spec in self.missing]
        if package is not None:
            lines.append(f"On Debian and Ubuntu, `sudo apt install {package.name}` does it too.")
        return "\n".join(lines)


def _read(path: Path, spec: FileSpec) -> bytes:
    """The content of a file on this machine, gzipped or not, checked."""
    size = path.stat().st_size
    if size > spec.limit:
        raise BadFileError(f"expected {spec.gzip_size:,} bytes, found {size:,}")
    data = path.read_bytes()
    return data if _is_content(data, spec) else unpack(data, spec)[1]


def _reason(error: Exception) -> str:
    """An error's own words, without the path that the caller names anyway."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _say(message: str) -> None:
    print(f"tinynet: {message}", file=sys.stderr)

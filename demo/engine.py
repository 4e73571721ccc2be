"""A real Elasticsearch for demo and tests: `python -m demo.engine fetch | run | exec -- COMMAND...`.

`exec` starts one, tells COMMAND its address in REAL_ENGINE_URL, and stops it again.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from demo.engine_files import EngineError, elasticsearch_home, only_one

_JAVA = 17
_NOBODY = 65534
_START_S = 180
_STOP_S = 30
_HEALTH = "/_cluster/health?wait_for_status=yellow&timeout=30s"
_CLUSTER = "rerank-proxy-demo"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one engine's own files are; the fetched ones are shared and never written to."""

    home: Path
    data: Path
    ports: tuple[int, int]


def java() -> Path:
    """Find a Java new enough; raises EngineError."""
    named = os.environ.get("JAVA_HOME")
    found = Path(named) / "bin/java" if named else Path(shutil.which("java") or "java")
    try:
        said = subprocess.run([found, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        raise EngineError(f"no Java at {found}: install a JDK {_JAVA} or newer, or set JAVA_HOME") from None
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        raise EngineError(f"{found} is too old ({said.splitlines()[0]}): install a JDK {_JAVA}, or set JAVA_HOME")
    return found.resolve()


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports of 127.0.0.1 that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


def settings(folders: Folders) -> str:
    """The engine's elasticsearch.yml: one node, this machine only, no security."""
    http, transport = folders.ports
    return "\n".join(
        (
            f"cluster.name: {_CLUSTER}",
            "node.name: demo",
            f"path.data: {folders.data}",
            f"path.logs: {folders.home / 'logs'}",
            "network.host: 127.0.0.1",
            f"http.port: {http}",
            f"transport.port: {transport}",
            "discovery.type: single-node",
            "xpack.security.enabled: false",
            "cluster.routing.allocation.disk.threshold_enabled: false",
            "",
        ),
    )


def command(java_path: Path, home: Path) -> list[str]:
    """The launcher's command line: the fetched tree has no shell scripts."""
    properties = {
        "cli.name": "server",
        "cli.script": f"{home}/bin/elasticsearch",
        "cli.libs": "lib/tools/server-cli",
        "es.path.home": f"{home}",
        "es.path.conf": f"{home}/config",
        "es.distribution.type": "tar",
        "es.java.type": "ES_JAVA_HOME",
    }
    flags = [f"-D{name}={value}" for name, value in properties.items()]
    launcher = ["-cp", "lib/*:lib/cli-launcher/*", "org.elasticsearch.launcher.CliToolLauncher"]
    return [*_as_nobody(), str(java_path), "-Xms4m", "-Xmx64m", "-XX:+UseSerialGC", *flags, *launcher]


def _as_nobody() -> list[str]:
    """Elasticsearch refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise EngineError("setpriv (util-linux) is missing, and Elasticsearch must not run as root: run as a user")
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]


def environment(java_path: Path, home: Path, heap: str) -> Mapping[str, str]:
    java_home = str(java_path.parent.parent)
    return {
        "PATH": os.environ.get("PATH", ""),
        "JAVA_HOME": java_home,
        "ES_JAVA_HOME": java_home,
        "ES_PATH_CONF": "config",
        "ES_TMPDIR": str(home / "tmp"),
        "ES_JAVA_OPTS": f"-Xms{heap} -Xmx{heap}",
    }


@contextmanager
def running(data: Path | None = None, heap: str = "512m") -> Iterator[str]:
    """Run an Elasticsearch and give its address; its data is kept where `data` names a folder for it.

    Raises EngineError when it cannot be had or does not start. It is stopped, both its processes, on the way out.
    """
    java_path, fetched = java(), elasticsearch_home()
    with tempfile.TemporaryDirectory(prefix=".engine-", dir=fetched.parent, ignore_cleanup_errors=True) as scratch:
        first, second, *_ = free_ports(2)
        folders = Folders(Path(scratch), data or Path(scratch) / "data", (first, second))
        if data is not None:
            data.mkdir(parents=True, exist_ok=True)
            lock = data.parent / f"{data.name}.lock"
            with only_one(lock, f"another engine uses {data}, waiting for it to stop"):
                yield from _running(folders, fetched, java_path, heap)
        else:
            yield from _running(folders, fetched, java_path, heap)


def _running(folders: Folders, fetched: Path, java_path: Path, heap: str) -> Iterator[str]:
    _lay_out(folders, fetched)
    log = folders.home / "logs/start.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(java_path, folders.home),
            cwd=folders.home,
            env=environment(java_path, folders.home, heap),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _when_ready(process, folders.ports[0], log)
    finally:
        _stop(process)


def _lay_out(folders: Folders, fetched: Path) -> None:
    """Make a home of links to what was fetched, and of the few folders that the engine writes to."""
    home = folders.home
    for entry in fetched.iterdir():
        if entry.name != "config":
            (home / entry.name).symlink_to(entry)
    shutil.copytree(fetched / "config", home / "config")
    for name in ("logs", "tmp", "plugins", "config/jvm.options.d"):
        (home / name).mkdir(exist_ok=True)
    folders.data.mkdir(parents=True, exist_ok=True)
    (home / "config/elasticsearch.yml").write_text(settings(folders))
    if os.geteuid() == 0:
        _give_to_nobody(home)
        _give_to_nobody(folders.data)


def _give_to_nobody(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)


def _when_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> str:
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineError(f"Elasticsearch ended while starting:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}{_HEALTH}", timeout=35) as health:  # noqa: S310  this machine's own
                if health.status == 200:
                    return url
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:]
    raise EngineError(f"Elasticsearch did not answer within {_START_S} s:\n{said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the launcher to stop, which stops the server; then make sure of the whole group."""
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        sys.stderr.write("Elasticsearch does not stop, it is killed\n")
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Stopped(BaseException):
    """A signal asked this process to end; like KeyboardInterrupt it passes every `except Exception`."""


def stop_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into an exception, so that what was started is stopped."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop_on_signals()
    try:
        if options.do == "fetch":
            print(elasticsearch_home())
            return 0
        with running(options.data, options.heap) as url:
            if options.do == "exec":
                return _run(options.command, url)
            print(url, flush=True)
            signal.pause()
    except EngineError as error:
        sys.stderr.write(f"demo.engine: {error}\n")
        return 1
    except (Stopped, KeyboardInterrupt):
        return 130
    return 0


def _run(words: Sequence[str], url: str) -> int:
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        sys.stderr.write("demo.engine exec: say which command, as in `python -m demo.engine exec -- pytest`\n")
        return 2
    with subprocess.Popen(words, env={**os.environ, "REAL_ENGINE_URL": url}) as child:
        try:
            return child.wait()
        except (Stopped, KeyboardInterrupt):
            child.terminate()
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.engine", description=__doc__)
    parser.add_argument("--heap", default="512m", help="the engine's heap (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="a folder to keep the engine's data in (default: thrown away)")
    do = parser.add_subparsers(dest="do", required=True)
    do.add_parser("fetch", help="fetch and verify Elasticsearch, print its folder")
    do.add_parser("run", help="run it and print its address, until Ctrl-C")
    execute = do.add_parser("exec", help="run it while a command runs, address in REAL_ENGINE_URL")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())

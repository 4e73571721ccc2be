"""The origin and the proxies that are compared, each as a process of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import Template

import trustme
import yaml

from demo.engine import free_ports

HERE = Path(__file__).parent
OURS, NGINX, AIOHTTP = "rerank-proxy", "nginx", "aiohttp"
PROXIES = (OURS, NGINX, AIOHTTP)
SIZES_KB = (1, 11, 110)
_START_S = 30
_STOP_S = 10


class Tls(StrEnum):
    """Which side of the proxies speaks TLS."""

    NONE = "none"
    CLIENTS = "clients"
    ENGINE = "engine"


class Missing(Exception):
    """A program that is not installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def program(name: str) -> str:
    """Find a program, nginx also where Debian puts it; raises Missing."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"{name} is missing: install it (Debian, Ubuntu: apt install {name})")
    return found


def target(size_kb: int) -> str:
    """Return the path of the origin's response of this size."""
    return f"/products/_doc/{size_kb}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The server that plays the engine, and the folder where the proxies' files go."""

    folder: Path
    url: str
    tls_url: str


@contextmanager
def origin(folder: Path) -> Iterator[Origin]:
    """Run the server that plays the engine."""
    folder.chmod(0o755)  # nginx's worker is another user
    _write_certificates(folder)
    for size in SIZES_KB:
        file = folder / "html" / target(size)[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"text":"' + "a" * (1024 * size - 11) + '"}')
    port, tls_port = free_ports(2)
    configuration = _filled("nginx_origin.conf", folder, "origin", port=port, tls_port=tls_port)
    with started(_nginx(configuration), (port, tls_port), folder / "origin.out"):
        yield Origin(folder, f"http://localhost:{port}", f"https://localhost:{tls_port}")


@contextmanager
def proxies(before: Origin, tls: Tls) -> Iterator[Mapping[str, Server]]:
    """Run every proxy in front of the origin."""
    ports = dict(zip(PROXIES, free_ports(len(PROXIES)), strict=True))
    commands = {
        OURS: _ours(before, tls, ports[OURS]),
        NGINX: _nginx_proxy(before, tls, ports[NGINX]),
        AIOHTTP: _aiohttp(before, tls, ports[AIOHTTP]),
    }
    scheme = "https" if tls is Tls.CLIENTS else "http"
    with ExitStack() as stack:
        yield {
            name: Server(
                f"{scheme}://127.0.0.1:{ports[name]}",
                stack.enter_context(started(command, (ports[name],), before.folder / f"{name}.out")).pid,
            )
            for name, command in commands.items()
        }


def _ours(before: Origin, tls: Tls, port: int) -> Sequence[str]:
    folder = before.folder
    listening = {"certificate_file": str(folder / "server.pem")} if tls is Tls.CLIENTS else {}
    trusting = {"ca_file": str(folder / "ca.pem")} if tls is Tls.ENGINE else {}
    settings = {
        "listen": {"port": port, **listening},
        "engine": {"url": before.tls_url if tls is Tls.ENGINE else before.url, **trusting},
    }
    file = folder / f"{OURS}-{tls}.yaml"
    file.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "proxy", "serve", "-c", str(file)]


def _nginx_proxy(before: Origin, tls: Tls, port: int) -> Sequence[str]:
    upstream = before.tls_url if tls is Tls.ENGINE else before.url
    scheme, _, address = upstream.partition("://")
    return _nginx(
        _filled(
            "nginx_proxy.conf",
            before.folder,
            f"nginx-{tls}",
            port=port,
            ssl="ssl" if tls is Tls.CLIENTS else "",
            scheme=scheme,
            origin_port=address.rpartition(":")[2],
        )
    )


def _aiohttp(before: Origin, tls: Tls, port: int) -> Sequence[str]:
    folder = before.folder
    upstream = before.tls_url if tls is Tls.ENGINE else before.url
    more = ["--certificate", str(folder / "server.pem")] if tls is Tls.CLIENTS else []
    more += ["--ca", str(folder / "ca.pem")] if tls is Tls.ENGINE else []
    return [sys.executable, "-m", "tests.bench.baselines.aiohttp_proxy", str(port), upstream, *more]


def _nginx(configuration: Path) -> Sequence[str]:
    folder = configuration.parent
    log = str(configuration.with_suffix(".log"))
    return [program("nginx"), "-e", log, "-p", str(folder), "-c", str(configuration), "-g", "daemon off;"]


def _filled(template: str, folder: Path, name: str, **values: object) -> Path:
    file = folder / f"{name}.conf"
    file.write_text(Template((HERE / template).read_text()).substitute(folder=folder, name=name, **values))
    return file


def _write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")


@contextmanager
def started(command: Sequence[str], ports: Sequence[int], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; it is given once it takes connections."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        for port in ports:
            _wait_for(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return

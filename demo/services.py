"""Run the project's own commands as processes, with their output in a file."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from demo.asking import NoAnswer, ask

_START_S = 60
_STOP_S = 40
_TAIL_LINES = 15
_TURN_S = 0.1


class ServiceError(Exception):
    """A command failed; the message has the end of its output and says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running command and its URL."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def running(name: str, arguments: Sequence[str], port: int, health: str | None, log: Path) -> Iterator[Service]:
    """Run `rerank-proxy` with arguments, yield it once it responds at the path `health`, and stop it at the end.

    Without a path, wait only until it accepts connections: a proxy without an engine has no successful response.
    Raises ServiceError if it does not respond.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(*arguments),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # only the demo receives Ctrl-C, and stops the other processes in order
        )
    service = Service(name, f"http://127.0.0.1:{port}", log, process)
    try:
        _wait_for_answer(service, health)
        yield service
    finally:
        _stop(service)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxy", *arguments]


def environment() -> dict[str, str]:
    """The environment without variables of this project, and without a real token."""
    dropped = ("RERANK_PROXY_", "DEEPINFRA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def check_alive(service: Service) -> None:
    """Raise ServiceError if a service has ended by itself."""
    if service.process.poll() is not None:
        raise ServiceError(f"{service.name} ended with code {service.process.returncode}{_last_words(service)}")


def _wait_for_answer(service: Service, health: str | None) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        check_alive(service)
        try:
            _connect(service) if health is None else ask(f"{service.url}{health}", timeout=5)
        except (NoAnswer, OSError) as error:
            if time.monotonic() > deadline:
                raise ServiceError(f"{service.name} does not answer: {error}{_last_words(service)}") from error
            time.sleep(_TURN_S)
        else:
            return


def _connect(service: Service) -> None:
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5):
        pass


def _last_words(service: Service) -> str:
    lines = service.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    said = "".join(f"\n  {line}" for line in lines) or "\n  (nothing)"
    return f". The end of {service.log}:{said}\nCorrect what it names, then run `make demo` again."


def _stop(service: Service) -> None:
    """Stop a service, and kill it if it does not stop in time."""
    service.process.terminate()
    try:
        service.process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        service.process.kill()
        service.process.wait()

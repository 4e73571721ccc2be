"""The home folder of one running engine: links to the fetched files, and its own settings, secrets and data."""

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.engines import Engine, EngineError
from demo.java import Java

USER = "elastic"

_NOBODY = 65534
_KEYSTORE_S = 120
_OWN = ("config", "logs")


@dataclass(frozen=True, slots=True)
class Access:
    """Access to the engine: open by http, or with a password for `elastic`, by https if there is TLS."""

    password: str | None = None
    tls: bool = False

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one running engine; the fetched files are shared and never written to."""

    engine: Engine
    java: Java
    home: Path
    data: Path
    ports: tuple[int, int]
    access: Access
    heap: str

    @property
    def url(self) -> str:
        return f"{self.access.scheme}://127.0.0.1:{self.ports[0]}"

    @property
    def log(self) -> Path:
        return self.home / "logs/start.log"

    @property
    def certificate(self) -> Path:
        return self.home / "config/http.crt"

    @property
    def key(self) -> Path:
        return self.home / "config/http.key"

    def command(self) -> list[str]:
        return [*_as_nobody(), *self.engine.launcher.command(**self._values())]

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), **self.engine.launcher.variables(**self._values())}

    def _values(self) -> dict[str, str]:
        return {"java_home": str(self.java.home), "home": str(self.home), "heap": self.heap}

    def put_into_keystore(self, name: str, secret: str) -> None:
        """Store a secret in the keystore, which the engine reads at its first start; raises EngineError."""
        for arguments, said in ((("create",), ""), (("add", "-x", name), secret)):
            self._keystore(arguments, said)

    def _keystore(self, arguments: Sequence[str], said: str) -> None:
        tool = self.engine.keystore
        if tool is None:
            raise EngineError(f"{self.engine.name} has no security here: leave it out, or name an Elasticsearch")
        done = subprocess.run(
            [*_as_nobody(), *tool.command(**self._values()), *arguments],
            cwd=self.home,
            env={"PATH": os.environ.get("PATH", ""), **tool.variables(**self._values())},
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=_KEYSTORE_S,
        )
        if done.returncode:
            raise EngineError(f"{self.engine.name}'s keystore: {(done.stdout + done.stderr).strip()[-600:]}")


def settings(layout: Layout) -> str:
    """The engine's settings file: one node, this machine only."""
    http, transport = layout.ports
    values = {
        **layout.engine.settings,
        "path.data": layout.data,
        "path.logs": layout.home / "logs",
        "http.port": http,
        "transport.port": transport,
    }
    if layout.access.password is not None:
        values["xpack.security.enabled"] = "true"
    if layout.access.tls:
        values["xpack.security.http.ssl.enabled"] = "true"
        values["xpack.security.http.ssl.certificate"] = layout.certificate
        values["xpack.security.http.ssl.key"] = layout.key
    return "".join(f"{name}: {value}\n" for name, value in values.items())


def lay_out(layout: Layout, fetched: Path) -> None:
    """Create the home folder of an engine, ready to start; raises EngineError."""
    home = layout.home
    for entry in fetched.iterdir():
        if entry.name not in _OWN:
            (home / entry.name).symlink_to(entry)
    shutil.copytree(fetched / "config", home / "config")
    for name in ("logs", "tmp", "plugins", "config/jvm.options.d"):
        (home / name).mkdir(exist_ok=True)
    layout.data.mkdir(parents=True, exist_ok=True)
    (home / f"config/{layout.engine.family}.yml").write_text(settings(layout))
    if layout.access.tls:
        _make_certificate(layout)
    if os.geteuid() == 0:
        _give_to_nobody(home)
        _give_to_nobody(layout.data)
    if layout.access.password is not None:
        layout.put_into_keystore("bootstrap.password", layout.access.password)


def _make_certificate(layout: Layout) -> None:
    """Create a key and a self-signed certificate for this machine with openssl."""
    if not shutil.which("openssl"):
        raise EngineError("openssl is missing, and it makes the engine's certificate: install it")
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    files = ("-keyout", str(layout.key), "-out", str(layout.certificate))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", *names, *files],
        check=True,
        capture_output=True,
    )


def _as_nobody() -> list[str]:
    """Run as another user, because the engines refuse root; they are stopped if this process is killed."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise EngineError("setpriv (util-linux) is missing, and the engines must not run as root: run as a user")
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=TERM"]


def demand_entry(folder: Path) -> None:
    """Raise EngineError if `nobody`, as whom the engines run when root starts them, may not enter a folder."""
    closed = [each for each in (folder, *folder.parents) if each.exists() and not each.stat().st_mode & stat.S_IXOTH]
    if closed:
        raise EngineError(
            f"the engines refuse to run as root, and their user may not look into {closed[0]}: "
            f"`chmod o+x {closed[0]}`, or name another folder in RERANK_PROXY_CACHE or --data",
        )


def _give_to_nobody(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)

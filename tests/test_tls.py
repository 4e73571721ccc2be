"""Certificates are read with the settings, refused with key and file, and what TLS finds wrong has a reason."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.app import listen
from proxy.cli import main
from proxy.errors import Unreachable
from proxy.settings.config import Config, Engine, Listen
from proxy.settings.tls import towards_clients, towards_engine
from proxy.upstream.addresses import Addresses
from proxy.upstream.nodes import Nodes
from tests.conftest import Log
from tests.fakes import Client, FakeServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, apart and in one file, another's key, the authority, and no certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    own, other = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(str(folder / "own.crt"))
    own.private_key_pem.write_to_path(str(folder / "own.key"))
    own.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    other.private_key_pem.write_to_path(str(folder / "other.key"))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    (folder / "locked.key").write_bytes(_locked(own.private_key_pem.bytes()))
    (folder / "no.pem").write_text("none\n")
    return folder


def _locked(key: bytes) -> bytes:
    private = serialization.load_pem_private_key(key, None)
    lock = serialization.BestAvailableEncryption(b"password")
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize(
    ("urls", "secured"), [(["http://a"], False), (["http://a", "https://b"], True), (["HTTPS://a"], True)]
)
def test_the_authority_is_read_only_for_https_nodes(urls: list[str], *, secured: bool) -> None:
    assert secured == (towards_engine(Engine(url=urls)) is not None)


@pytest.mark.parametrize(("certificate", "key"), [("own.crt", "own.key"), ("both.pem", None)])
def test_a_certificate_and_its_key_are_loaded(files: Path, certificate: str, key: str | None) -> None:
    own, its_key = str(files / certificate), str(files / key) if key else None
    assert towards_engine(Engine(url="https://a", certificate_file=own, key_file=its_key)) is not None
    assert towards_clients(Listen(certificate_file=own, key_file=its_key)) is not None


def test_without_a_certificate_clients_use_plain_http() -> None:
    assert towards_clients(Listen()) is None


WRONG = [
    ("engine: {{url: 'https://a', ca_file: {0}/none}}", "engine.ca_file: {0}/none: cannot be read: "),
    ("engine: {{url: 'https://a', ca_file: {0}/no.pem}}", "engine.ca_file: {0}/no.pem: holds no certificate. "),
    ("engine: {{url: 'https://a', certificate_file: {0}}}", "engine.certificate_file: {0}: cannot be read: "),
    (
        "engine: {{url: 'https://a', certificate_file: {0}/own.crt, key_file: {0}/none}}",
        "engine.key_file: {0}/none: cannot be read: ",
    ),
    ("listen: {{certificate_file: {0}/none}}", "listen.certificate_file: {0}/none: cannot be read: "),
    ("listen: {{certificate_file: {0}/no.pem}}", "listen.certificate_file: {0}/no.pem: holds no certificate. "),
    ("listen: {{certificate_file: {0}/own.crt}}", "listen.certificate_file: {0}/own.crt: holds no key, "),
    (
        "listen: {{certificate_file: {0}/own.crt, key_file: {0}/other.key}}",
        "listen.key_file: {0}/other.key: holds no key, ",
    ),
    (
        "listen: {{certificate_file: {0}/own.crt, key_file: {0}/locked.key}}",
        "listen.key_file: {0}/locked.key: holds no key, ",
    ),
]


@pytest.mark.parametrize(("written", "said"), WRONG)
def test_an_unusable_certificate_file_is_an_error_with_key_and_file(
    written: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one line, without a traceback, and without a prompt for a password."""
    (tmp_path / "config.yaml").write_text(written.format(files))
    assert main(("serve", "-c", str(tmp_path / "config.yaml"), "--listen", "127.0.0.1:0")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert (1, True) == (len(lines), lines[0].startswith(f"rerank-proxy: {said.format(files)}"))


@pytest.mark.parametrize(("written", "said"), [WRONG[0], WRONG[4]])
def test_check_reports_an_unusable_certificate_file(
    written: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(written.format(files))
    assert main(("check", "-c", str(tmp_path / "config.yaml"))) == 1
    assert f": {said.format(files)}" in capsys.readouterr().out


def _refuse(secured: ssl.SSLSocket) -> None:
    """Send the alert, and read what the client says meanwhile: unread, it would reset the connection, alert and all."""
    with pytest.raises(ssl.SSLError):
        secured.do_handshake()
    secured.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while secured.recv(4096):
            pass


@contextlib.contextmanager
def demanding(authority: trustme.CA) -> Iterator[int]:
    """A server that demands a client's certificate and says by a TLS alert that it got none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def refuse_all() -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                connection, _ = server.accept()
                with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
                    _refuse(secured)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse_all)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_an_engine_that_requires_a_client_certificate_is_a_502_with_a_logged_reason(
    authority: trustme.CA, files: Path, log: Log
) -> None:
    with demanding(authority) as port:
        config = Config(
            listen=Listen(port=0), engine=Engine(url=f"https://127.0.0.1:{port}", ca_file=str(files / "ca.crt"))
        )
        async with AsyncExitStack() as stack:
            client = await Client.to((await listen(config, None, {}, stack)).port)
            reply = await client.ask("GET", "/")
            client.close()
    error = reply.json()["error"]
    assert (502, "engine_unreachable") == (reply.status, error["type"])
    assert f"engine: 127.0.0.1:{port}: TLSV13_ALERT_CERTIFICATE_REQUIRED" == log[-1]["detail"]


@pytest.mark.parametrize(("name", "reached"), [("engine.test", True), ("other.test", False)])
async def test_the_engines_certificate_is_verified_for_the_host_of_its_url(
    name: str, authority: trustme.CA, files: Path, *, reached: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)

    async def resolve(host: str) -> list[str]:
        assert host == "engine.test"
        return ["127.0.0.1"]

    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        settings = Engine(url=f"https://engine.test:{port}", ca_file=str(files / "ca.crt"))
        expected = (
            contextlib.nullcontext() if reached else pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED")
        )
        with expected:
            (await Nodes(settings, Addresses(resolve)).connect()).close()


Opened = Callable[[], Awaitable[Client]]


@pytest.fixture
async def open_tls(authority: trustme.CA, files: Path, log: Log) -> AsyncIterator[Opened]:
    """Start a proxy that is asked by https, and open connections to it."""
    trusting = ssl.create_default_context(cafile=str(files / "ca.crt"))
    shown = Listen(port=0, certificate_file=str(files / "own.crt"), key_file=str(files / "own.key"))
    async with FakeServer() as server, AsyncExitStack() as stack:
        listener = await listen(Config(listen=shown, engine=Engine(url=server.url)), None, {}, stack)

        async def opened() -> Client:
            return Client(*await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting))

        yield opened


async def test_clients_can_send_several_requests_over_tls(open_tls: Opened) -> None:
    client = await open_tls()
    assert [(200, b"{}")] * 2 == [(reply.status, reply.body) for reply in [await client.ask("GET", "/a") for _ in "ab"]]
    client.close()
    await client.writer.wait_closed()


async def test_a_tls_client_that_disconnects_causes_no_warning(
    open_tls: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    client = await open_tls()
    await client.ask("GET", "/a")
    client.close()
    await client.writer.wait_closed()
    assert [] == caplog.messages

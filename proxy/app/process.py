"""The process of `serve`: opens the ports, reloads the settings, and drains on SIGTERM."""

import asyncio
import gc
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from proxy.app import GRACE_S, Proxy, listen_for, open_proxy
from proxy.app.admin import open_admin
from proxy.app.breakers import ModelBreakers
from proxy.app.control import Breakers, Reloaded, State
from proxy.app.gauges import gauges_of
from proxy.app.generation import Secrets, next_generation, secrets_of
from proxy.http1.listener import Listener
from proxy.settings.config import Config
from proxy.settings.credentials import admin_token_of
from proxy.settings.effective import changed_keys, effective, in_force, needs_restart
from proxy.settings.rollout import Switches
from proxy.settings.routes import build_routes
from proxy.settings.tls import towards_clients, towards_engine, towards_models
from proxy.settings.yaml_file import ConfigError
from proxy.upstream.guard import Guards
from proxy.upstream.spending.report import Costs
from proxy.upstream.threads import apart

ReadConfig = Callable[[], Config]
"""Reads the settings again; raises ConfigError."""
WATCH_S = 1.0
"""Seconds between two checks of the watched files."""
LAG_SAMPLE_S = 0.5
"""Seconds between two measurements of the event loop's lag."""
ENDING_S = 10.0
"""Seconds that the process may take to end after its last request."""
_T = TypeVar("_T")
_COLLECTED_EACH = 10_000
"""New objects between two runs of the garbage collector."""
_ENDING = Reloaded("the process is ending")
_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class _New:
    """The settings of a reload, and what is read from other files that they name."""

    found: Config
    """As they are in the file."""
    config: Config
    """As far as they can be changed without a restart."""
    secrets: Secrets
    to_clients: ssl.SSLContext | None
    to_engine: ssl.SSLContext | None


def _read_files(read: ReadConfig, started: Config, environment: Mapping[str, str]) -> _New:
    """Read all files of a reload; blocks, without end if a file server hangs. Raises ConfigError."""
    found = read()
    config = in_force(found, started)
    towards_models(config.models)
    secrets = secrets_of(config, environment)
    return _New(found, config, secrets, towards_clients(config.listen), towards_engine(config.engine))


class Process:
    """The running proxy, as operators see and control it."""

    def __init__(self, proxy: Proxy, read: ReadConfig | None, environment: Mapping[str, str]) -> None:
        self.state = State.STARTING
        self.breakers: Breakers = ModelBreakers(self._guards)
        self._proxy = proxy
        self._started = proxy.generation.config
        self._tasks: set[asyncio.Task[Any]] = set()
        self._read = read
        self._environment = environment
        self._reloading = asyncio.Lock()
        self._signalled = asyncio.Event()
        self._listener: Listener | None = None
        gauges = gauges_of(proxy, self.breakers, is_ready=lambda: self.state is State.READY, clients=self._clients)
        for gauge in gauges:
            proxy.telemetry.metrics.add(gauge)

    @property
    def switches(self) -> Switches:
        return self._proxy.fixed.switches

    @property
    def _is_draining(self) -> bool:
        return self.state is State.DRAINING

    def serves_on(self, listener: Listener) -> None:
        """Record that the proxy accepts requests."""
        self._listener = listener
        self.state = State.READY

    # -- state

    def verdicts(self) -> Mapping[str, Any]:
        nodes, redis = self._proxy.fixed.nodes.reachable(), self._proxy.fixed.caches.redis_state
        return {
            "engine": {str(node): "ok" if reached else "unreachable" for node, reached in nodes.items()},
            "models": self.breakers.states(),
            "canary": dict(self._proxy.generation.models.canary.reports),
            **({"redis": redis} if redis else {}),
            "reranking": "on" if self.switches.reranking else "off",
        }

    def settings(self) -> Mapping[str, Any]:
        return effective(self._proxy.generation.config, self._environment)

    def costs(self) -> Costs:
        return self._proxy.generation.front.searching.spending.costs()

    def metrics(self) -> bytes:
        return self._proxy.telemetry.metrics.text()

    def _clients(self) -> int:
        return self._listener.clients if self._listener else 0

    def _guards(self) -> Guards:
        return self._proxy.generation.models.guards

    # -- reload

    async def reload(self) -> Reloaded:
        """Read the settings again; invalid ones change nothing. It goes on if the wait for it is cancelled."""
        if self._read is None:
            return Reloaded("the settings were not read from a file")
        return await asyncio.shield(self._kept(self._reload(self._read)))

    async def _reload(self, read: ReadConfig) -> Reloaded:
        async with self._reloading:
            reloaded = await self._reloaded(read)
        self._proxy.telemetry.metrics.reloaded("failed" if reloaded.error else "ok")
        if reloaded.error:
            _log.error("reload_failed", detail=f"{reloaded.error}. The earlier settings stay in force")
        else:
            _log.info("reloaded", changed=list(reloaded.changed), needs_restart=list(reloaded.needs_restart))
        return reloaded

    async def _reloaded(self, read: ReadConfig) -> Reloaded:
        earlier = self._proxy.generation
        if self._is_draining:
            return _ENDING
        try:
            new = await apart(partial(_read_files, read, self._started, self._environment))
        except ConfigError as error:
            return Reloaded(str(error))
        except OSError as error:  # no thread can be started at present
            return Reloaded(f"the settings cannot be read now: {error.strerror}")
        if self._is_draining:
            return _ENDING
        if self._listener is not None:
            try:
                await self._listener.secure_by(new.to_clients)
            except OSError as error:
                return Reloaded(f"listen.certificate_file: cannot be used now: {error.strerror}")
        self._proxy.replace(await next_generation(new.config, new.secrets, self._proxy.fixed, earlier))
        self._proxy.generation.watch_models()
        self._proxy.fixed.nodes.secure_by(new.to_engine)
        self._proxy.fixed.spares.drop()
        restart = needs_restart(new.found, self._started)
        return Reloaded(changed=changed_keys(earlier.config, new.config), needs_restart=restart)

    def reload_soon(self) -> None:
        """Have `reload_when_signalled` reload, for a signal handler, which cannot wait."""
        self._signalled.set()

    def _kept(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task that goes on until it ends, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reload_safely(self) -> None:
        try:
            await self.reload()
        except Exception:  # noqa: BLE001  after any error, the current settings stay in force
            _log.exception("internal_error")

    # -- background tasks

    async def reload_when_signalled(self) -> None:
        """Reload after signals; those that come during a reload cause one more."""
        while True:
            await self._signalled.wait()
            self._signalled.clear()
            await self._reload_safely()

    async def watch(self, file: Path, every_seconds: float = WATCH_S) -> None:
        """Reload after a change to the settings file, or to a certificate file that it names."""
        seen = self._fingerprint(file)  # the files have just been read
        while True:
            await asyncio.sleep(every_seconds)
            with suppress(OSError):  # no thread can be started at present
                now = await apart(partial(self._fingerprint, file))
                if now != seen:
                    await self._reload_safely()
                    seen = now

    def _fingerprint(self, file: Path) -> Mapping[Path, tuple[int, ...]]:
        return {path: _fingerprint(path) for path in (file, *certificate_files(self._proxy.generation.config))}

    async def measure_lag(self, every_seconds: float = LAG_SAMPLE_S) -> None:
        """Measure by how much the event loop delays a timer."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every_seconds
            await asyncio.sleep(every_seconds)
            self._proxy.telemetry.metrics.lagged(loop.time() - due)


def certificate_files(config: Config) -> Iterator[Path]:
    """Return the certificate and key files that the settings name."""
    for section in (config.listen, config.engine, config.models):
        for key in ("certificate_file", "key_file", "ca_file"):
            if name := getattr(section, key, None):
                yield Path(name)


def _fingerprint(path: Path) -> tuple[int, ...]:
    """Return a value that changes with the file, also if a symbolic link is redirected, as Kubernetes does."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size)


@asynccontextmanager
async def _meanwhile(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _spare_what_stays() -> None:
    """Exempt what exists by now from garbage collection, and collect less often.

    A full collection traverses all modules and settings: under load that took a fifth of a reranked search's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_EACH)


@contextmanager
def on_signals(numbers: Iterable[signal.Signals], handle: Callable[[], object]) -> Iterator[None]:
    """Call a function in the event loop on each of these signals while the block runs; then what was before holds.

    A handler of the event loop leaves the default action behind: a second SIGTERM would kill the process before it has
    written the last lines of its log.
    """
    loop = asyncio.get_running_loop()

    def handler(*_: object) -> None:
        loop.call_soon_threadsafe(handle)

    earlier = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, action in earlier.items():
            signal.signal(number, action or signal.SIG_DFL)


async def serve_until_stopped(  # noqa: PLR0913
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    *,
    read: ReadConfig | None = None,
    watched: Path | None = None,
    ends_within: Callable[[float], object] = lambda _: None,
) -> None:
    """Run a proxy until SIGTERM or SIGINT; `read` reads its settings again, and `watched` is their file.

    `ends_within` limits the time until the process has ended, also if a thread waits for a file or for DNS.
    """
    stopped = asyncio.Event()
    async with AsyncExitStack() as stack:
        stack.enter_context(on_signals((signal.SIGTERM, signal.SIGINT), stopped.set))
        starting = _start(config, token, environment, stack, read=read, watched=watched)
        started = await _unless(stopped, starting)
        if started is not None:
            process, listener = started
            await stopped.wait()
            process.state = State.DRAINING
            listener.shut()
        _log.info("stopping")
        ends_within(GRACE_S + ENDING_S)
    ends_within(ENDING_S)


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Do work, unless the process is stopped meanwhile: then the work is cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _start(  # noqa: PLR0913
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    stack: AsyncExitStack,
    *,
    read: ReadConfig | None,
    watched: Path | None,
) -> tuple[Process, Listener]:
    """Open everything; `stack` closes it."""
    proxy = await open_proxy(config, token, environment, stack)
    process = Process(proxy, read, environment)
    stack.enter_context(on_signals((signal.SIGHUP,), process.reload_soon))
    admin = await open_admin(config.admin, process, admin_token_of(config, environment), stack)
    proxy.warm_up(stack)
    proxy.generation.watch_models()
    watching = (process.watch(watched),) if watched else ()
    always = (process.measure_lag(), process.reload_when_signalled(), proxy.fixed.meter.keep_saved())
    await stack.enter_async_context(_meanwhile(*always, *watching))
    listener = await listen_for(proxy, stack)
    process.serves_on(listener)
    _spare_what_stays()
    scheme = "https" if config.listen.certificate_file else "http"
    _log.info(
        "listening",
        address=f"{scheme}://{config.listen.host}:{listener.port}",
        **({"admin": f"http://{config.admin.host}:{admin}"} if admin else {}),
        engine=list(config.engine.urls),
        routes=[route.name for route in build_routes(config)],
    )
    return process, listener

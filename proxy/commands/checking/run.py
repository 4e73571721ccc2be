"""`rerank-proxy check`: check the settings file, the engine, its indices and the models."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from proxy.commands.checking.findings import Finding
from proxy.commands.checking.routes import look_at, unused_patterns, unusual_times
from proxy.commands.checking.services import ModelQuestion, ask_models, ask_nodes, ask_redis, question_of
from proxy.errors import Refused, UpstreamError
from proxy.settings.config import Config
from proxy.settings.credentials import (
    admin_token_of,
    authorization_of,
    cache_secrets_of,
    needs_token,
    rerank_token_of,
    token_of,
)
from proxy.settings.routes import build_routes
from proxy.settings.tls import check_redis_ca, towards_clients, towards_engine, towards_models
from proxy.settings.yaml_file import ConfigError, YamlFile
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.pool import CarriedFields


async def check(
    config: Config, environment: Mapping[str, str], file: YamlFile, *, offline: bool = False
) -> AsyncIterator[Finding]:
    """Check everything that searches of these routes need; `offline`: only the file and the environment variables."""
    token, authorization = _token(config, environment, offline=offline), _authorization(config, environment)
    ports, of_models = [*_certificate(config), *_admin(config, environment)], list(_models_certificates(config))
    of_caches = list(_caches(config, environment))
    services = (*authorization.findings, *of_models, *of_caches, *_traces(config), *_state_files(config))
    on_file = [*_routes_of_file(config, file), *token.findings, *ports, *services]
    for finding in on_file:
        yield finding
    if offline:
        return
    if not of_caches:
        async for finding in ask_redis(config.cache, cache_secrets_of(config, environment)):
            yield finding
    questions = {route.name: question_of(route, None) for route in build_routes(config)}
    if authorization.usable:
        async for finding in _engine(config, authorization.fields, questions):
            yield finding
    if token.usable and not of_models:
        async for finding in ask_models(config, token.value, token.rerank_value, tuple(questions.values())):
            yield finding


@dataclass(frozen=True, slots=True)
class _Secret:
    """A secret from the environment, results about it, and whether the service that needs it can be checked."""

    findings: tuple[Finding, ...]
    value: str | None = None
    rerank_value: str | None = None
    usable: bool = True

    @property
    def fields(self) -> CarriedFields:
        return (("Authorization", self.value),) if self.value else ()


def _token(config: Config, environment: Mapping[str, str], *, offline: bool) -> _Secret:
    variable = config.models.token_env
    try:
        token = token_of(config, environment)
        rerank_token = rerank_token_of(config, token, environment)
    except ConfigError as error:
        said = f"{error}. `serve` refuses to start without it."
        return _Secret((Finding("note" if offline else "wrong", "token", said),), usable=False)
    said = "is set" if token else "is not set" if config.routes and needs_token(config) else "is not needed"
    return _Secret((Finding("ok", "token", f"{variable} {said}"),), token, rerank_token)


def _authorization(config: Config, environment: Mapping[str, str]) -> _Secret:
    try:
        towards_engine(config.engine)
        return _Secret((), authorization_of(config, environment))
    except ConfigError as error:
        return _Secret((Finding("wrong", "engine", str(error)),), usable=False)


def _certificate(config: Config) -> Iterator[Finding]:
    try:
        towards_clients(config.listen)
    except ConfigError as error:
        yield Finding("wrong", "listen", str(error))


def _models_certificates(config: Config) -> Iterator[Finding]:
    try:
        towards_models(config.models)
    except ConfigError as error:
        yield Finding("wrong", "models", str(error))


def _caches(config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        cache_secrets_of(config, environment)
        check_redis_ca(config.cache)
    except ConfigError as error:
        yield Finding("wrong", "redis", str(error))
    if config.cache.redis_url and not _is_installed("redis"):
        yield Finding("wrong", "redis", f"cache.redis_url needs redis, which is not installed: {_install('redis')}")


def _traces(config: Config) -> Iterator[Finding]:
    if config.traces.url and not _is_installed("opentelemetry.sdk"):
        yield Finding("wrong", "traces", f"traces.url needs OpenTelemetry, which is not installed: {_install('otel')}")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _install(extra: str) -> str:
    return f"pip install -c constraints.txt '.[{extra}]' in a checkout of this project"


def _state_files(config: Config) -> Iterator[Finding]:
    for key, name in (("spend.file", config.spend.file), ("models.canary_file", config.models.canary_file)):
        if name and Path(name).exists() and not Path(name).is_file():
            yield Finding("wrong", key, f"{name} is not a regular file: name another one")
        elif name and not os.access(folder := Path(name).absolute().parent, os.W_OK | os.X_OK):
            said = f"{name} cannot be written: {folder} does not exist, or this user may not write to it"
            yield Finding("wrong", key, f"{said}. Create it, or name another file")


def _admin(config: Config, environment: Mapping[str, str]) -> Iterator[Finding]:
    try:
        admin_token_of(config, environment)
    except ConfigError as error:
        yield Finding("wrong", "admin", str(error))


def _routes_of_file(config: Config, file: YamlFile) -> Iterator[Finding]:
    routes = build_routes(config)
    said = f"{len(routes)} route{'' if len(routes) == 1 else 's'}" if routes else "no routes: everything passes through"
    yield Finding("ok", "file", said)
    for path, finding in unused_patterns(routes):
        yield Finding(finding.kind, file.where(path), finding.said)
    for path, problem in unusual_times(config):
        yield Finding("note", file.where(path), problem)


async def _engine(
    config: Config, carried: CarriedFields, questions: dict[str, ModelQuestion]
) -> AsyncIterator[Finding]:
    """Check the nodes, then the indices of each route; puts the models of the indices into `questions`."""
    reached = False
    async for finding in ask_nodes(config.engine, carried):
        reached |= finding.kind in {"ok", "note"}
        yield finding
    if not reached:
        return
    engine = EngineClient(config.engine)
    try:
        async for finding in _routes(config, engine.for_caller(b"check", carried), questions):
            yield finding
    finally:
        await engine.close()


async def _routes(
    config: Config, caller: EngineOfCaller, questions: dict[str, ModelQuestion]
) -> AsyncIterator[Finding]:
    routes = build_routes(config)
    for route, settings in zip(routes, config.routes, strict=True):
        try:
            looked = await look_at(route, settings, routes, caller)
        except Refused as error:
            yield Finding("note", route.name, f"the engine refused ({error}), so the indices were not checked")
            continue
        except UpstreamError as error:
            yield Finding("unreachable", route.name, f"cannot be checked: {error}")
            continue
        questions[route.name] = question_of(route, looked.vectors)
        for finding in looked.findings:
            yield finding

"""`rerank-proxy serve`."""

import argparse
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import uvloop

from proxy.app.process import serve_until_stopped
from proxy.commands.console import overrides, report_failure
from proxy.settings.config import Config
from proxy.settings.config_file import load
from proxy.settings.credentials import admin_token_of, authorization_of, token_of
from proxy.settings.yaml_file import ConfigError
from proxy.telemetry.log import configure
from proxy.upstream.threads import end_within, join_within

_JOINED_S = 2.0
"""Seconds that the end waits for files that are being read."""


def _read_again(path: Path, environment: Mapping[str, str], given: Mapping[str, str]) -> Config:
    """Read the settings for a reload; raises ConfigError.

    A pipe, such as `<(...)` of a shell, is empty by then, or would be waited for without end.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"{path}: is not a file, so it cannot be read again. Restart the proxy, or name a file with -c"
        )
    return load(path, environment, given)


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, environment, overrides(options))
    token = token_of(config, environment)
    authorization_of(config, environment)
    admin_token_of(config, environment)
    log = configure(config.log)
    read = partial(_read_again, options.config, environment, overrides(options))
    watched = options.config if options.watch else None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # while nobody handles it, see `on_signals`
    try:
        serving = serve_until_stopped(config, token, environment, read=read, watched=watched, ends_within=end_within)
        uvloop.run(serving)
        if not join_within(_JOINED_S):
            if log is not None:
                log.close()
            os._exit(0)
    except OSError as error:
        address = f"{config.listen.host}:{config.listen.port}"
        return report_failure(
            f"cannot listen on {address}: {error.strerror}. Name another address with --listen HOST:PORT"
        )
    return 0

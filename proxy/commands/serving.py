"""`rerank-proxy serve`."""

import argparse
from collections.abc import Mapping
from functools import partial

import uvloop

from proxy.app.process import serve_until_stopped
from proxy.commands.console import overrides, report_failure
from proxy.settings.config_file import load
from proxy.settings.credentials import admin_token_of, authorization_of, token_of
from proxy.telemetry.log import configure


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, environment, overrides(options))
    token = token_of(config, environment)
    authorization_of(config, environment)
    admin_token_of(config, environment)
    configure(config.log)
    read = partial(load, options.config, environment, overrides(options))
    watched = options.config if options.watch else None
    try:
        uvloop.run(serve_until_stopped(config, token, environment, read=read, watched=watched))
    except OSError as error:
        address = f"{config.listen.host}:{config.listen.port}"
        return report_failure(
            f"cannot listen on {address}: {error.strerror}. Name another address with --listen HOST:PORT"
        )
    return 0

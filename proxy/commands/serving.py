"""`rerank-proxy serve`."""

import argparse
from collections.abc import Mapping

import uvloop

from proxy.app import serve_until_told
from proxy.commands.console import failed, overrides
from proxy.settings.config import authorization_of, load, token_of
from proxy.telemetry.log import configure


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, environment, overrides(options))
    token = token_of(config, environment)
    authorization_of(config, environment)
    configure(config.log)
    try:
        uvloop.run(serve_until_told(config, token, environment))
    except OSError as error:
        address = f"{config.listen.host}:{config.listen.port}"
        return failed(f"cannot listen on {address}: {error.strerror}. Name another address with --listen HOST:PORT")
    return 0

"""What commands print: errors with a next step, JSON, and the settings that options override."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.settings.config import Config
from proxy.settings.config_file import load, read

NAME_SAFE = "*,:<>%-._~"
"""Characters of an index name that are not percent-encoded again: the name may be encoded already."""


def settings_or_defaults(options: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Read the settings file; without a `config.yaml`, and if no other one is named, the defaults are used."""
    missing = not options.config.exists() and options.config == Path("config.yaml")
    settings = {**environment, **overrides(options)}
    return read("", "config.yaml", settings) if missing else load(options.config, settings)


def report_failure(message: str) -> int:
    """Print an error; returns the exit code."""
    sys.stderr.write(f"rerank-proxy: {message}\n")
    return 1


def print_json(value: Any) -> None:
    """Print a value as JSON over several lines."""
    sys.stdout.write(f"{msgspec.json.format(msgspec.json.encode(value)).decode()}\n")


def overrides(options: argparse.Namespace) -> Mapping[str, str]:
    """Return the settings that options override, by the names of their environment variables."""
    given = {
        "RERANK_PROXY_LISTEN": getattr(options, "listen", None),
        "RERANK_PROXY_ENGINE_URL": options.engine,
        "RERANK_PROXY_MODELS_URL": options.models,
    }
    return {name: value for name, value in given.items() if value}

"""`rerank-proxy check`, and `check --search`."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from proxy.commands.advice import connection_advice
from proxy.commands.checking.dry_run import dry_run
from proxy.commands.checking.findings import UNREACHABLE, Finding, exit_code
from proxy.commands.checking.run import check
from proxy.commands.console import NAME_SAFE, overrides, print_json, report_failure
from proxy.endpoints.routing import SearchCall
from proxy.errors import UpstreamError
from proxy.settings.config import Config
from proxy.settings.config_file import load_with_lines
from proxy.settings.yaml_file import YamlFile


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if (options.search is None) != (options.index is None) or (options.search and options.offline):
        return report_failure(
            "--search FILE and --index NAME go together, and not with --offline: the search needs the engine"
        )
    config, file = load_with_lines(options.config, environment, overrides(options))
    if options.search:
        return _dry_run(config, environment, options)
    findings = asyncio.run(_findings(config, environment, file, offline=options.offline))
    code = exit_code(findings)
    if options.json:
        print_json({"exit": code, "findings": findings})
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.kind:11}  {finding.place}: {finding.said}\n")
    return code


async def _findings(config: Config, environment: Mapping[str, str], file: YamlFile, *, offline: bool) -> list[Finding]:
    return [finding async for finding in check(config, environment, file, offline=offline)]


def _dry_run(config: Config, environment: Mapping[str, str], options: argparse.Namespace) -> int:
    content = sys.stdin.buffer.read() if options.search == "-" else Path(options.search).read_bytes()
    indices, _, query_string = options.index.partition("?")
    try:
        ran = asyncio.run(
            dry_run(config, environment, SearchCall(quote(indices, safe=NAME_SAFE), query_string, content))
        )
    except UpstreamError as error:
        report_failure(f"the engine cannot be reached: {error.detail}. {connection_advice(error.detail)}")
        return UNREACHABLE
    if options.json:
        print_json({"outcome": ran.outcome, **ran.details})
    else:
        sys.stdout.write(f"{ran.outcome}\n")
        for name, value in ran.details.items():
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            sys.stdout.write(f"{name.replace('_', ' ')}: {shown}\n")
    return int(ran.failed)

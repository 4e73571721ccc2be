"""`rerank-proxy eval`."""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from urllib.parse import quote

from proxy.commands.console import NAME_SAFE, report_failure
from proxy.commands.evaluation import INSTALL
from proxy.commands.evaluation.errors import CannotEvaluate


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        from proxy.commands.evaluation.command import evaluate, options_of  # noqa: PLC0415  its packages are an extra
    except ImportError as error:
        return report_failure(f"the evaluation is not installed ({error.name}): {INSTALL}")
    indices, _, parameters = options.index.partition("?")
    target = f"/{quote(indices, safe=NAME_SAFE)}/_search{'?' if parameters else ''}{parameters}"
    try:
        return asyncio.run(evaluate(options_of(options, target, environment), sys.stdout))
    except CannotEvaluate as error:
        return report_failure(str(error))

"""`rerank-proxy models`."""

import argparse
from collections.abc import Mapping

from proxy.commands.console import report_failure
from proxy.commands.local_models import INSTALL


def run(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        return report_failure(f"--listen: expected host:port, as in 127.0.0.1:8080, not {options.listen!r}")
    try:
        from proxy.commands.local_models.app import run as run_models  # noqa: PLC0415  its packages are an extra
        from proxy.commands.local_models.minilm import LocalModelsMissing  # noqa: PLC0415
    except ImportError as error:
        return report_failure(f"the local models are not installed ({error.name}): {INSTALL}")
    try:
        run_models(host, int(port))
    except LocalModelsMissing as error:
        return report_failure(str(error))
    except OSError as error:
        return report_failure(
            f"cannot listen on {options.listen}: {error.strerror}. Name another address with --listen HOST:PORT"
        )
    return 0

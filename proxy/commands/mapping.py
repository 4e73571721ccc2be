"""`rerank-proxy mapping`."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace

from proxy.commands.loading.mappings import SPELLINGS, index_for, shipped_embedding


def run(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    shipped = shipped_embedding(options.profile)
    embedding = replace(shipped, dimensions=options.dimensions or shipped.dimensions)
    body = index_for(
        options.profile,
        None if options.no_vectors else embedding,
        options.language,
        SPELLINGS[options.engine_kind],
    )
    sys.stdout.write(f"{json.dumps(body, indent=2, ensure_ascii=False)}\n")
    return 0

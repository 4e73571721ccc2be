"""The arguments of the commands that create and fill indices: `mapping`, `index`, `backfill`."""

import argparse
from typing import Any

from proxy.cli.arguments import add_config, add_language, command, later, positive, rate
from proxy.commands.loading.mappings import SPELLINGS
from proxy.settings.profiles import PROFILES, TIERS

_PROFILE_HELP = "profile of the documents, see `rerank-proxy profiles` (default: that of the route)"


def add_mapping(commands: Any) -> None:
    parser = command(
        commands,
        "mapping",
        later("mapping"),
        "Print the settings and mappings of an index for a profile, as a body for `curl -X PUT`.",
        "mapping e-commerce",
        "mapping legal --engine-kind opensearch --language german",
    )
    parser.add_argument("profile", choices=PROFILES, metavar="PROFILE", help="one of the names in `profiles`")
    parser.add_argument(
        "--engine-kind",
        choices=SPELLINGS,
        default="elasticsearch",
        help="engine that will create the index (default: %(default)s)",
    )
    add_language(parser)
    parser.add_argument("--dimensions", type=positive, metavar="N", help="length of the vectors (default: 384)")
    parser.add_argument("--no-vectors", action="store_true", help="an index for BM25 only, without a vector field")


def add_index(commands: Any) -> None:
    parser = command(
        commands,
        "index",
        later("loading.running", "index"),
        "Load documents with their vectors into an index. Run it again to update or to continue after an interruption.",
        "index products.ndjson --name products-2026",
        "index statutes.json --name statutes --profile legal",
        "index products.ndjson --name products-2026 --dry-run",
        "index - --name products-2026 --no-vectors < products.ndjson",
    )
    parser.add_argument("file", help="NDJSON or a JSON array, gzipped or not; - reads standard input")
    parser.add_argument("--name", required=True, metavar="INDEX", help="the index; it is created if it is missing")
    parser.add_argument("--profile", choices=PROFILES, metavar="PROFILE", help=_PROFILE_HELP)
    add_language(parser)
    parser.add_argument(
        "--id-field", metavar="FIELD", help="field with the id (default: _id, else id, else a hash of the document)"
    )
    parser.add_argument("--no-vectors", action="store_true", help="load for BM25 only, without vectors")
    _add_vectors(parser)
    add_config(parser)


def add_backfill(commands: Any) -> None:
    parser = command(
        commands,
        "backfill",
        later("loading.running", "backfill"),
        "Add vectors to an existing index, and keep them current. Vectors that match their text are left as they are.",
        "backfill products-2026 --rate 50",
        "backfill products-2026 --watch --interval 60",
    )
    parser.add_argument("index", help="an index, alias or data stream")
    parser.add_argument("--profile", choices=PROFILES, metavar="PROFILE", help=_PROFILE_HELP)
    parser.add_argument("--rate", type=rate, metavar="N", help="maximum documents per second (default: no limit)")
    parser.add_argument(
        "--watch", action="store_true", help="keep running, and update the vectors of documents that change"
    )
    parser.add_argument(
        "--interval", type=rate, default=30.0, metavar="SECONDS", help="with --watch: time between runs (default: 30)"
    )
    _add_vectors(parser)
    add_config(parser)


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing and call no model: count texts, tokens and US dollars"
    )
    parser.add_argument(
        "--tier", choices=TIERS, help="tier of the embedding model (default: that of the route or profile)"
    )
    parser.add_argument("--embedding-model", metavar="NAME", help="name of the embedding model, instead of a tier")
    parser.add_argument(
        "--dimensions", type=positive, metavar="N", help="length of the vectors (default: that of the model)"
    )
    parser.add_argument(
        "--passage",
        metavar="FIELD,…",
        help="fields to embed, separated by commas (default: those of the vectors in the index, else those of the "
        "route)",
    )
    parser.add_argument("--field", metavar="FIELD", help="vector field (default: that of the route, else embedding)")

"""The demo's shop: its catalogue, its searches, and its index in the engine."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.asking import NoAnswer, ask
from demo.services import ServiceError, command, environment
from proxy.commands.evaluation.collection import Query, read_collection
from proxy.commands.loading.mappings import read_embedding
from proxy.commands.local_models.minilm import NAME
from proxy.settings.config_file import load as read_settings
from proxy.settings.routes import build_routes

INDEX = "products"
CONFIG = Path(__file__).parent / "config.yaml"
PRODUCTS = Path(__file__).parent / "catalogue/products.ndjson"
FIELDS = ("title^2", "description")
SHOWN = ("q01", "q02", "q03")
"""The searches that are shown in full."""


def queries() -> tuple[Query, ...]:
    return read_collection(PRODUCTS.with_name("queries.ndjson"), PRODUCTS.with_name("judgments.ndjson")).queries


def products() -> Mapping[str, Any]:
    """Read the catalogue, by id."""
    lines = PRODUCTS.read_text(encoding="utf-8").splitlines()
    return {product["id"]: product for product in map(json.loads, lines)}


def is_loaded(engine: str) -> bool:
    """Whether the engine has exactly this catalogue, with current vectors."""
    route = build_routes(read_settings(CONFIG, {}))[0]
    body = {"size": 10_000, "query": {"exists": {"field": "embedding_hash"}}, "_source": {"excludes": ["embedding*"]}}
    try:
        mapping = ask(f"{engine}/{INDEX}/_mapping").body[INDEX]["mappings"]
        hits = ask(f"{engine}/{INDEX}/_search", body).body["hits"]["hits"]
    except NoAnswer:
        return False
    embedding = read_embedding("embedding", mapping)
    if embedding is None or (embedding.model, embedding.passage) != (NAME, route.embedded):
        return False
    return {hit["_id"]: hit["_source"] for hit in hits} == products()


def load(engine: str, models: str) -> None:
    """Load the catalogue with the command `index`, replacing an older one; raises ServiceError."""
    ask(f"{engine}/{INDEX}?ignore_unavailable=true", method="DELETE")
    words = ("index", str(PRODUCTS), "--name", INDEX, "-c", str(CONFIG), "--engine", engine, "--models", models)
    done = subprocess.run(command(*words), env=environment(), stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise ServiceError("the catalogue was not loaded: correct the error above, then run `make demo` again")
    ask(f"{engine}/{INDEX}/_refresh", method="POST")

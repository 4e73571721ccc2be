"""Settings and mappings of new indices: the files of `es_mappings`, adapted to a model, dimensions and a language."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import proxy
from proxy.catalog.dialects import Version
from proxy.catalog.indices import META_KEY
from proxy.settings.passage_template import PassageTemplate, template_of
from proxy.settings.profiles import PROFILES
from proxy.settings.redaction import NO_REDACTION, Redaction

Filter = Mapping[str, Any]
# A filter without effect, for a step that a language does not need: the tokens are lowercase already.
_NOTHING: Filter = {"type": "lowercase"}


@dataclass(frozen=True, slots=True)
class Language:
    """The analyzer of a language: elision, stop words and stemmer."""

    stopwords: str
    stemmer: Filter
    elision: Filter | None = None
    """Removes elided articles, or normalises letters."""


def _stemmed(name: str, stemmer: str) -> Language:
    return Language(f"_{name}_", {"type": "stemmer", "language": stemmer})


def _elided(name: str, stemmer: str, articles: Sequence[str]) -> Language:
    elision = {"type": "elision", "articles_case": True, "articles": articles}
    return Language(f"_{name}_", {"type": "stemmer", "language": stemmer}, elision)


_FRENCH = ("l", "m", "t", "qu", "n", "s", "j", "d", "c", "jusqu", "quoiqu", "lorsqu", "puisqu")
_ITALIAN = (
    "c",
    "l",
    "all",
    "dall",
    "dell",
    "nell",
    "sull",
    "coll",
    "pell",
    "gl",
    "agl",
    "dagl",
    "degl",
    "negl",
    "sugl",
)

# Elasticsearch reference, "Language analyzers" and "Stemmer token filter".
LANGUAGES: Mapping[str, Language] = {
    "arabic": Language("_arabic_", {"type": "stemmer", "language": "arabic"}, {"type": "arabic_normalization"}),
    "cjk": Language("_cjk_", {"type": "cjk_bigram"}, {"type": "cjk_width"}),
    "danish": _stemmed("danish", "danish"),
    "dutch": _stemmed("dutch", "dutch"),
    "english": Language(
        "_english_",
        {"type": "stemmer", "language": "english"},
        {"type": "stemmer", "language": "possessive_english"},
    ),
    "finnish": _stemmed("finnish", "finnish"),
    "french": _elided("french", "light_french", _FRENCH),
    "german": _stemmed("german", "light_german"),
    "hindi": _stemmed("hindi", "hindi"),
    "hungarian": _stemmed("hungarian", "hungarian"),
    "italian": _elided("italian", "light_italian", _ITALIAN),
    "none": Language("_none_", _NOTHING),
    "norwegian": _stemmed("norwegian", "norwegian"),
    "portuguese": _stemmed("portuguese", "light_portuguese"),
    "russian": _stemmed("russian", "russian"),
    "spanish": _stemmed("spanish", "light_spanish"),
    "swedish": _stemmed("swedish", "swedish"),
    # Turkish has two letters I and İ, each with its own lowercase letter.
    "turkish": Language(
        "_turkish_", {"type": "stemmer", "language": "turkish"}, {"type": "lowercase", "language": "turkish"}
    ),
}


@dataclass(frozen=True, slots=True)
class Embedding:
    """The vectors of an index as its mapping describes them: field, model, dimensions and embedded fields."""

    field: str
    model: str
    dimensions: int
    passage: tuple[str, ...]
    """Entries of a passage template."""
    redaction: Redaction = NO_REDACTION
    """Of the route, which is not part of the mapping."""

    @property
    def template(self) -> PassageTemplate:
        return template_of(self.passage)

    @property
    def hash_field(self) -> str:
        return f"{self.field}_hash"

    @property
    def meta(self) -> Mapping[str, Any]:
        """Return the description for `_meta` of the mapping."""
        said = {"model": self.model, "dimensions": self.dimensions, "passage": list(self.passage)}
        return {META_KEY: {self.field: said}}

    @property
    def properties(self) -> Mapping[str, Any]:
        """Return the two fields that are added to the mapping."""
        vector = {"type": "dense_vector", "dims": self.dimensions, "index": True, "similarity": "cosine"}
        return {self.field: vector, self.hash_field: {"type": "keyword"}}


_NO_PLUGIN = (
    "this OpenSearch has no k-NN plugin (opensearch-knn), which vectors need: install it on every node, or load for "
    "BM25 only with `index --no-vectors`"
)


@dataclass(frozen=True, slots=True)
class LeavesOut:
    """An index setting that leaves vectors out of `_source`, except for updates, reindexing and clients that name them.

    It cannot be changed once the index exists.
    """

    setting: str
    since: Version


@dataclass(frozen=True, slots=True)
class Spelling:
    """The mapping syntax of an engine, as differences from Elasticsearch's."""

    types: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]
    """Converts fields of a type that the engine does not have."""
    for_vectors: dict[str, Any]
    """Settings that an index with vectors needs when it is created."""
    refusals: Mapping[str, str]
    """Advice by a part of the engine's error message."""
    leaves_out: LeavesOut | None

    def leaving_out(self, version: Version | None) -> str | None:
        """Return the setting that leaves vectors out of `_source`; None if this version has none or is not known."""
        own = self.leaves_out
        return own.setting if own and version is not None and version >= own.since else None

    def properties(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the fields of a mapping."""
        return {name: self._field(spec) for name, spec in properties.items()}

    def _field(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        inner = {key: self.properties(spec[key]) for key in ("properties", "fields") if key in spec}
        respelled = self.types.get(spec.get("type", "object"))
        return respelled(spec) if respelled else {**spec, **inner}


def _knn_vector(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    # The Lucene engine filters during the search, and every build of the plugin has it.
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    return {"type": "knn_vector", "dimension": spec["dims"], "method": method}


SPELLINGS: Mapping[str, Spelling] = {
    # The setting was seen on 9.4.3; 8.19.13 does not know it.
    "elasticsearch": Spelling({}, {}, {}, LeavesOut("index.mapping.exclude_source_vectors", (9, 2))),
    # OpenSearch documentation, "k-NN vector" and "Flat object"; the latter takes no parameters. Its derived source
    # (`index.knn.derived_source.enabled`) saves disk, but responses contain the vectors: seen on 2.19.1 and 3.5.0.
    "opensearch": Spelling(
        {"dense_vector": _knn_vector, "flattened": lambda _: {"type": "flat_object"}},
        {"index.knn": True},
        {
            "No handler for type [knn_vector]": _NO_PLUGIN,
            "unknown setting [index.knn]": _NO_PLUGIN,
            "index.knn setting is false": "the index was created without `index.knn: true`, which cannot be set later: "
            "create a new one with `rerank-proxy index` or `mapping`, and copy the documents to it with _reindex",
        },
        None,
    ),
}


def read_embedding(field: str, mappings: Mapping[str, Any]) -> Embedding | None:
    """Read the description of a vector field from a mapping; None if there is none."""
    match mappings.get("_meta", {}).get(META_KEY, {}).get(field):
        case {"model": str(model), "dimensions": int(dimensions), "passage": list(passage)}:
            return Embedding(field, model, dimensions, tuple(map(str, passage)))
        case _:
            return None


def folder() -> Path:
    """Return the folder of the files: inside an installed package, beside the package in a checkout."""
    packed = Path(proxy.__file__).parent / "es_mappings"
    return packed if packed.is_dir() else Path(proxy.__file__).parent.parent / "es_mappings"


def index_for(
    profile: str,
    embedding: Embedding | None,
    language: str = "english",
    spelling: Spelling = SPELLINGS["elasticsearch"],
    version: Version | None = None,
) -> dict[str, Any]:
    """Return the body that creates an index for a profile, with or without vectors, on an engine of this version."""
    body = _read(profile)
    mappings = body["mappings"]
    shipped = mappings.pop("_meta")[META_KEY]
    for field in shipped:
        del mappings["properties"][field], mappings["properties"][f"{field}_hash"]
    if embedding:
        mappings["_meta"] = embedding.meta
        mappings["properties"] |= embedding.properties
    mappings["properties"] = spelling.properties(mappings["properties"])
    leaving_out = spelling.leaving_out(version)
    for_vectors = spelling.for_vectors | ({leaving_out: True} if leaving_out else {}) if embedding else {}
    return {"settings": _in_language(body["settings"], LANGUAGES[language]) | for_vectors, "mappings": mappings}


def shipped_embedding(profile: str) -> Embedding:
    """Return the vectors in the file of a profile."""
    ((field, said),) = _read(profile)["mappings"]["_meta"][META_KEY].items()
    return Embedding(field, said["model"], said["dimensions"], tuple(said["passage"]))


def _read(profile: str) -> dict[str, Any]:
    return msgspec.json.decode((folder() / PROFILES[profile].mapping).read_bytes(), type=dict[str, Any])


def _in_language(settings: Mapping[str, Any], language: Language) -> dict[str, Any]:
    filters = {
        "language_elision": language.elision or _NOTHING,
        "language_stop": {"type": "stop", "stopwords": language.stopwords},
        "language_stemmer": language.stemmer,
    }
    analysis = settings["analysis"]
    return {**settings, "analysis": {**analysis, "filter": analysis["filter"] | filters}}

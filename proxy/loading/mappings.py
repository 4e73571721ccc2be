"""Indices ready for their use: the files of `es_mappings`, fitted to a model, a vector length and a language."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import proxy
from proxy.indices import META_KEY
from proxy.profiles import PROFILES

Filter = Mapping[str, Any]
# In a place that a language has no use for: what it does is done already.
_NOTHING: Filter = {"type": "lowercase"}


@dataclass(frozen=True, slots=True)
class Language:
    """How words of a language are brought together: what is done first, left out, and reduced to a stem."""

    stopwords: str
    stemmer: Filter
    elision: Filter | None = None
    """Cuts off what stands in front of a word, or makes its letters alike."""


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
    # I and İ are two letters there, and have each its own small one.
    "turkish": Language(
        "_turkish_", {"type": "stemmer", "language": "turkish"}, {"type": "lowercase", "language": "turkish"}
    ),
}


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an index says of its vectors: the model that made them, their length, and what was embedded."""

    field: str
    model: str
    dimensions: int
    passage: tuple[str, ...]

    @property
    def hash_field(self) -> str:
        return f"{self.field}_hash"

    @property
    def meta(self) -> Mapping[str, Any]:
        """Spell it for the mapping's `_meta`."""
        said = {"model": self.model, "dimensions": self.dimensions, "passage": list(self.passage)}
        return {META_KEY: {self.field: said}}

    @property
    def properties(self) -> Mapping[str, Any]:
        """Spell the two fields beside the documents' own."""
        vector = {"type": "dense_vector", "dims": self.dimensions, "index": True, "similarity": "cosine"}
        return {self.field: vector, self.hash_field: {"type": "keyword"}}


_NO_PLUGIN = (
    "this OpenSearch has no k-NN plugin (opensearch-knn), and so no vectors: install it on every node, or load "
    "for BM25 alone with `index --no-vectors`"
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How an engine spells what the files and this module say in Elasticsearch's words."""

    types: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]
    """A field's type to the field as it is spelled there, where that differs."""
    for_vectors: dict[str, Any]
    """What an index must be told when it is created, to hold vectors."""
    refusals: Mapping[str, str]
    """Words of the engine's refusal to what is to be done about it."""

    def properties(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Spell the fields of a mapping."""
        return {name: self._field(spec) for name, spec in properties.items()}

    def _field(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        inner = {key: self.properties(spec[key]) for key in ("properties", "fields") if key in spec}
        respelled = self.types.get(spec.get("type", "object"))
        return respelled(spec) if respelled else {**spec, **inner}


def _knn_vector(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    # Lucene's, which filters while it searches, and which every build of the plugin has.
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    return {"type": "knn_vector", "dimension": spec["dims"], "method": method}


SPELLINGS: Mapping[str, Spelling] = {
    "elasticsearch": Spelling({}, {}, {}),
    # OpenSearch, "k-NN vector" and "Flat object"; the latter takes no parameters.
    "opensearch": Spelling(
        {"dense_vector": _knn_vector, "flattened": lambda _: {"type": "flat_object"}},
        {"index.knn": True},
        {
            "No handler for type [knn_vector]": _NO_PLUGIN,
            "unknown setting [index.knn]": _NO_PLUGIN,
            "index.knn setting is false": "the index was created without `index.knn: true`, which cannot be set later: "
            "make a new one with `rerank-proxy index` or `mapping`, and copy the documents there with _reindex",
        },
    ),
}


def read_embedding(field: str, mappings: Mapping[str, Any]) -> Embedding | None:
    """Read what a mapping says of the vectors in a field; None where it does not."""
    match mappings.get("_meta", {}).get(META_KEY, {}).get(field):
        case {"model": str(model), "dimensions": int(dimensions), "passage": list(passage)}:
            return Embedding(field, model, dimensions, tuple(map(str, passage)))
        case _:
            return None


def folder() -> Path:
    """Return where the files are: in the package when it was built, beside it in a working copy."""
    packed = Path(proxy.__file__).parent / "es_mappings"
    return packed if packed.is_dir() else Path(proxy.__file__).parent.parent / "es_mappings"


def index_for(
    profile: str,
    embedding: Embedding | None,
    language: str = "english",
    spelling: Spelling = SPELLINGS["elasticsearch"],
) -> dict[str, Any]:
    """Return the body that creates an index for a profile: with these vectors, or with none."""
    body = _read(profile)
    mappings = body["mappings"]
    shipped = mappings.pop("_meta")[META_KEY]
    for field in shipped:
        del mappings["properties"][field], mappings["properties"][f"{field}_hash"]
    if embedding:
        mappings["_meta"] = embedding.meta
        mappings["properties"] |= embedding.properties
    mappings["properties"] = spelling.properties(mappings["properties"])
    for_vectors = spelling.for_vectors if embedding else {}
    return {"settings": _in_language(body["settings"], LANGUAGES[language]) | for_vectors, "mappings": mappings}


def shipped_embedding(profile: str) -> Embedding:
    """Return what the file of a profile says of its vectors."""
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

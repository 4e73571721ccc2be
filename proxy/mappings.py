"""Indices ready for their use: the files of `es_mappings`, fitted to a model, a vector length and a language."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

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


def read_embedding(field: str, mappings: Mapping[str, Any]) -> Embedding | None:
    """Read what a mapping says of the vectors in a field; None where it does not."""
    match mappings.get("_meta", {}).get(META_KEY, {}).get(field):
        case {"model": str(model), "dimensions": int(dimensions), "passage": list(passage)}:
            return Embedding(field, model, dimensions, tuple(map(str, passage)))
        case _:
            return None


def folder() -> Path:
    """Return where the files are: in the package when it was built, beside it in a working copy."""
    packed = Path(__file__).parent / "es_mappings"
    return packed if packed.is_dir() else Path(__file__).parent.parent / "es_mappings"


def index_for(profile: str, embedding: Embedding | None, language: str = "english") -> dict[str, Any]:
    """Return the body that creates an index for a profile: with these vectors, or with none."""
    body = msgspec.json.decode((folder() / PROFILES[profile].mapping).read_bytes(), type=dict[str, Any])
    mappings = deepcopy(body["mappings"])
    shipped = mappings.pop("_meta")[META_KEY]
    for field in shipped:
        del mappings["properties"][field], mappings["properties"][f"{field}_hash"]
    if embedding:
        mappings["_meta"] = embedding.meta
        mappings["properties"] |= embedding.properties
    return {"settings": _in_language(body["settings"], LANGUAGES[language]), "mappings": mappings}


def _in_language(settings: Mapping[str, Any], language: Language) -> dict[str, Any]:
    filters = {
        "language_elision": language.elision or _NOTHING,
        "language_stop": {"type": "stop", "stopwords": language.stopwords},
        "language_stemmer": language.stemmer,
    }
    analysis = settings["analysis"]
    return {**settings, "analysis": {**analysis, "filter": analysis["filter"] | filters}}

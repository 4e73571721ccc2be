"""The files of es_mappings fit their profile, and are made to fit a model, a length and a language."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.indices import META_KEY, flatten
from proxy.commands.loading.mappings import (
    LANGUAGES,
    SPELLINGS,
    Embedding,
    folder,
    index_for,
    read_embedding,
    shipped_embedding,
)
from proxy.settings.passage_template import template_of
from proxy.settings.profiles import PROFILES, TIERS

EMBEDDING = Embedding("vector", "some-model", 7, ("title", "body"))
names = st.text(min_size=1, max_size=10)


def shipped(profile: str) -> Any:
    return json.loads((folder() / PROFILES[profile].mapping).read_text(encoding="utf-8"))


def named(analyzed: Any) -> set[str]:
    """Find the analyzers that fields name."""
    return {value for _, spec in analyzed for key, value in spec.items() if key in {"analyzer", "search_analyzer"}}


def test_every_profile_has_a_mapping_file() -> None:
    assert {path.name for path in folder().iterdir()} == {profile.mapping for profile in PROFILES.values()}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_names_the_model_and_the_fields_of_its_vectors(profile: str) -> None:
    body, own = shipped(profile), PROFILES[profile]
    held = read_embedding("embedding", body["mappings"])
    assert held == Embedding("embedding", TIERS[own.tier].embedding, 384, own.embedded)
    assert body["mappings"]["properties"]["embedding"] == held.properties["embedding"]
    assert body["mappings"]["properties"]["embedding_hash"] == held.properties["embedding_hash"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_has_passage_text_and_keyword_fields(profile: str) -> None:
    fields = dict(flatten(shipped(profile)["mappings"]["properties"]))
    assert set(template_of(PROFILES[profile].passage).fields) <= fields.keys()
    assert set(template_of(PROFILES[profile].embedded).fields) <= set(template_of(PROFILES[profile].passage).fields)
    types = {spec["type"] for spec in fields.values()}
    assert {"text", "keyword", "dense_vector"} <= types
    assert types & {"integer", "float", "double", "date"}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_analyzers_of_a_file_are_defined_and_used(profile: str) -> None:
    body = shipped(profile)
    mappings = body["mappings"]
    others = [("", template["mapping"]) for entry in mappings["dynamic_templates"] for template in entry.values()]
    used = named([*flatten(mappings["properties"]), *others])
    assert used - {"keyword"} == body["settings"]["analysis"]["analyzer"].keys()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_mapping_has_the_dimensions_of_the_model(profile: str) -> None:
    mappings = index_for(profile, EMBEDDING)["mappings"]
    assert mappings["_meta"] == {
        META_KEY: {"vector": {"model": "some-model", "dimensions": 7, "passage": ["title", "body"]}}
    }
    assert mappings["properties"]["vector"]["dims"] == 7
    assert mappings["properties"]["vector_hash"] == {"type": "keyword"}
    assert not {"embedding", "embedding_hash"} & mappings["properties"].keys()


@pytest.mark.parametrize("profile", PROFILES)
def test_an_index_without_vectors_has_no_vector_metadata(profile: str) -> None:
    mappings = index_for(profile, None)["mappings"]
    assert "_meta" not in mappings
    assert "dense_vector" not in {spec["type"] for _, spec in flatten(mappings["properties"])}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_files_are_in_english(profile: str) -> None:
    assert index_for(profile, None)["settings"] == shipped(profile)["settings"]


OPENSEARCH = SPELLINGS["opensearch"]


@pytest.mark.parametrize("profile", PROFILES)
def test_mappings_are_translated_for_opensearch(profile: str) -> None:
    """The body is Elasticsearch's except for types with other names and what vectors need."""
    body, there = index_for(profile, EMBEDDING, "german"), index_for(profile, EMBEDDING, "german", OPENSEARCH)
    assert there["settings"] == body["settings"] | {"index.knn": True}
    assert {**there["mappings"], "properties": {}} == {**body["mappings"], "properties": {}}
    fields, respelled = (dict(flatten(found["mappings"]["properties"])) for found in (body, there))
    assert fields.keys() == respelled.keys()
    for path, spec in fields.items():
        expected: Any = {
            "dense_vector": {
                "type": "knn_vector",
                "dimension": 7,
                "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
            },
            "flattened": {"type": "flat_object"},
        }.get(spec["type"])
        assert respelled[path] == expected or {**respelled[path], "fields": None} == {**spec, "fields": None}


def test_nested_fields_are_translated_for_opensearch() -> None:
    inner = {"type": "nested", "properties": {"v": {"type": "dense_vector", "dims": 2}, "t": {"type": "text"}}}
    spelled = OPENSEARCH.properties({"a": inner, "o": {"properties": {"f": {"type": "flattened"}}}})
    assert spelled["a"]["properties"]["v"]["type"] == "knn_vector"
    assert spelled["a"]["properties"]["t"] == {"type": "text"}
    assert spelled["o"] == {"properties": {"f": {"type": "flat_object"}}}


def test_opensearch_needs_no_plugin_without_vectors() -> None:
    assert "index.knn" not in index_for("rag", None, "english", OPENSEARCH)["settings"]


@pytest.mark.parametrize("profile", PROFILES)
def test_mappings_for_elasticsearch_are_those_of_the_file(profile: str) -> None:
    assert index_for(profile, shipped_embedding(profile)) == shipped(profile)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_changes_only_the_filters(language: str) -> None:
    there, here = index_for("legal", EMBEDDING), index_for("legal", EMBEDDING, language)
    for body in (there, here):
        for name in ("language_elision", "language_stop", "language_stemmer"):
            del body["settings"]["analysis"]["filter"][name]
    assert here == there


def test_language_none_removes_the_language_filters() -> None:
    filters = index_for("rag", None, "none")["settings"]["analysis"]["filter"]
    assert filters["language_stop"] == {"type": "stop", "stopwords": "_none_"}
    assert filters["language_stemmer"] == {"type": "lowercase"}


@given(st.builds(Embedding, names, names, st.integers(1, 4096), st.lists(names, max_size=3).map(tuple)))
def test_vector_metadata_of_an_index_is_read_back(embedding: Embedding) -> None:
    assert read_embedding(embedding.field, {"_meta": embedding.meta}) == embedding


@pytest.mark.parametrize(
    "mappings",
    [
        {},
        {"_meta": {}},
        {"_meta": {META_KEY: {}}},
        {"_meta": {META_KEY: {"other": dict(EMBEDDING.meta[META_KEY]["vector"])}}},
        {"_meta": {META_KEY: {"vector": {"model": "m"}}}},
        {"_meta": {META_KEY: {"vector": {"model": "m", "dimensions": "7", "passage": []}}}},
    ],
)
def test_incomplete_vector_metadata_is_ignored(mappings: Any) -> None:
    assert read_embedding("vector", mappings) is None

"""Passage fields that documents cannot have are found in the mapping, with what to write instead."""

from typing import Any

import pytest

from proxy.catalog.indices import read_facts
from proxy.catalog.passage_fields import missing_fields

MAPPING: dict[str, Any] = {
    "properties": {
        "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
        "maker": {"properties": {"name": {"type": "keyword"}}},
        "label": {"type": "alias", "path": "title"},
        "raw": {"type": "object", "enabled": False},
        "place": {"type": "geo_point"},
    }
}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("title", None),
        ("maker", None),
        ("maker.name", None),
        ("raw.anything", None),
        ("place.lat", None),
        ("titel", "titel is not in the mapping, did you mean `title`?"),
        ("maker.nam", "maker.nam is not in the mapping, did you mean `maker.name`?"),
        ("zzz", "zzz is not in the mapping; expected one of: maker.name, place, title"),
        ("title.raw", "title.raw is a multi-field: documents have title"),
        ("label", "label is an alias: documents have title"),
    ],
)
def test_a_field_is_in_the_mapping_or_the_reason_is_given(field: str, said: str | None) -> None:
    assert ({field: said} if said else {}) == missing_fields([field], read_facts({"i": {"mappings": MAPPING}}))


def test_a_long_list_of_fields_is_not_printed() -> None:
    many = {"properties": {f"a{number}": {"type": "text"} for number in range(100)}}
    assert {"zzz": "zzz is not in the mapping"} == missing_fields(["zzz"], read_facts({"i": {"mappings": many}}))


def test_a_field_of_any_index_is_enough() -> None:
    facts = read_facts({"i": {"mappings": MAPPING}, "j": {"mappings": {"properties": {"other": {"type": "text"}}}}})
    assert {} == missing_fields(["title", "other"], facts)

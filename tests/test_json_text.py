"""JSON as it was written: exactly one member cut out or added, some set, or all of it indented as the engine does."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.parsing.json_text import (
    compacted,
    indented,
    items_of,
    members_of,
    read,
    take_member,
    whole,
    with_member,
    with_members_set,
)
from tests import strategies
from tests.test_turns import TIMES_JSON, json_seconds

PATH = ("ext", "rerank_proxy")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"ext":{"rerank_proxy":{"a":[1,{"b":"}"}]}}}', b'{"ext":{}}'),
        (b'{"ext":{"rerank_proxy":1,"o":2}}', b'{"ext":{"o":2}}'),
        (b'{"ext":{"o":2,"rerank_proxy":1}}', b'{"ext":{"o":2}}'),
        (b'{"ext":{"o":2,"rerank_proxy":1,"p":3}}', b'{"ext":{"o":2,"p":3}}'),
        (b'{ "ext" : { "o" : 2 , "rerank_proxy" : 1 , "p" : 3 } }', b'{ "ext" : { "o" : 2 , "p" : 3 } }'),
        (b'{ "ext" : { "o" : 2 ,\n "rerank_proxy" : 1\n } }', b'{ "ext" : { "o" : 2\n } }'),
        (b'\n{"size":1e1,"ext":{"rerank_proxy":1},"a":"\\u00e4"}\r\n', b'\n{"size":1e1,"ext":{},"a":"\\u00e4"}\r\n'),
        ('{"ä":"ö","ext":{"rerank_proxy":"ü","x":"ß"}}'.encode(), '{"ä":"ö","ext":{"x":"ß"}}'.encode()),
        (
            b'{"query":{"ext":{"rerank_proxy":1}},"ext":{"rerank_proxy":2}}',
            b'{"query":{"ext":{"rerank_proxy":1}},"ext":{}}',
        ),
        (b'{"ext":{"a":1},"ext":{"rerank_proxy":2}}', b'{"ext":{"a":1},"ext":{}}'),
    ],
)
def test_removing_a_member_keeps_every_other_byte(body: bytes, left: bytes) -> None:
    assert left == take_member(body, PATH)[0]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"ext":1}', b'{"ext":{}}', b'{"ext":{"a":1}}', b'{"rerank_proxy":1}']
)
def test_removing_a_missing_member_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|no member|Expecting"):
        take_member(body, PATH)


LARGE = 2_000_000
VALUES: Mapping[str, bytes] = {
    "nested": b'{"q":[' + b"[[[]]]," * (LARGE // 7) + b'0],"ext":{"rerank_proxy":1}}',
    "members": b"{" + b"".join(b'"a%d":1,' % number for number in range(LARGE // 10)) + b'"ext":{"rerank_proxy":1}}',
    "equal names": b"{" + b'"a":1,' * (LARGE // 6) + b'"ext":{"rerank_proxy":1}}',
    "nested, equal names": b'{"q":[' + b"[[[]]]," * (LARGE // 7) + b'0],"q":1,"ext":{"rerank_proxy":1}}',
    "nested, unpaired surrogate": b'{"q":["\\ud800",' + b"[[[]]]," * (LARGE // 7) + b'0],"ext":{"rerank_proxy":1}}',
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("edit", [lambda body: take_member(body, PATH), lambda body: with_members_set(body, {"a": 1})])
def test_edits_take_linear_time(name: str, edit: Callable[[bytes], object]) -> None:
    """Including the garbage collections that decoding causes."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        with suppress(ValueError):
            edit(VALUES[name])
        times.append(time.thread_time() - began)
    assert min(times) < 2 * TIMES_JSON * json_seconds(LARGE)


def test_duplicate_names_are_found() -> None:
    body = b'{"a":1,"ext":{"x":1,"rerank_proxy":12,"x":2},"a":12}'
    assert (b'{"a":1,"ext":{"x":1,"x":2},"a":12}', b"12") == take_member(body, PATH)
    assert b'{      "ext":{"x":1,"rerank_proxy":12,"x":2},      "a":3}' == with_members_set(body, {"a": 3})


objects = st.dictionaries(st.text(), strategies.json_values, max_size=5)
spaces = st.sampled_from([None, 1, "\t"])


@given(objects, objects, spaces)
def test_an_object_emptied_by_a_removal_is_removed_too(
    outer: Mapping[str, Any], inner: Mapping[str, Any], space: Any
) -> None:
    others = {name: value for name, value in inner.items() if name != "x"}
    body = json.dumps({**outer, "ext": {**inner, "x": 1}}, indent=space).encode()
    left = {name: value for name, value in outer.items() if name != "ext"} | ({"ext": others} if others else {})
    rest, taken = take_member(body, ("ext", "x"), prune=True)
    assert (left, b"1") == (json.loads(rest), taken)


@given(objects, objects, st.text(), strategies.json_values, st.integers(0, 5), spaces, st.booleans())
def test_adding_and_removing_a_member_restores_the_bytes(
    outer: Mapping[str, Any],
    inner: Mapping[str, Any],
    name: str,
    value: Any,
    place: int,
    space: Any,
    escaped: bool,  # noqa: FBT001
) -> None:
    assume(name not in inner)
    members = list(inner.items())
    members.insert(place, (name, value))
    body = json.dumps({**outer, "ext": dict(members)}, indent=space, ensure_ascii=escaped)
    rest, taken = take_member(body.encode(), ("ext", name))
    left = json.loads(rest)
    assert ({**outer, "ext": inner}, list(inner), value) == (left, list(left["ext"]), json.loads(taken))


@given(st.dictionaries(st.text(), strategies.json_values, min_size=1, max_size=4), strategies.json_values)
def test_an_appended_member_can_be_removed_again(members: Mapping[str, Any], value: Any) -> None:
    assume("status" not in members)
    body = strategies.compact(members)
    added = with_member(body, "status", strategies.compact(value))
    assert strategies.compact({**members, "status": value}) == added
    assert (body, strategies.compact(value)) == take_member(added, ("status",))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"a":1}'),
        (b"{ \n}\n", b'{ \n"a":1}\n'),
        (b'{"a":0}', b'{     "a":1}'),
        (b'{"b":1.50}', b'{"b":1.50,"a":1}'),
        (b'{"b":1.50 , "a":0 }', b'{"b":1.50 ,      "a":1 }'),
        (b'{"a":0, "b":1.50}', b'{       "b":1.50,"a":1}'),
        (b'{"a":\r\n0,"b":1}', b'{    \r\n  "b":1,"a":1}'),
        ('{"a":"ü","b":1}'.encode(), b'{         "b":1,"a":1}'),
    ],
)
def test_a_set_member_is_last_and_the_others_keep_their_positions(body: bytes, expected: bytes) -> None:
    assert expected == with_members_set(body, {"a": 1})


@given(objects, objects, spaces, st.booleans())
def test_setting_a_member_blanks_its_old_text(
    before: Mapping[str, Any],
    members: Mapping[str, Any],
    space: Any,
    escaped: bool,  # noqa: FBT001
) -> None:
    assume(members)
    body = json.dumps(before, indent=space, ensure_ascii=escaped).encode()
    kept = {name: value for name, value in before.items() if name not in members}
    assert list({**kept, **members}.items()) == list(json.loads(with_members_set(body, members)).items())


@given(strategies.json_values, spaces)
def test_values_are_indented_like_the_engines(value: Any, space: Any) -> None:
    expected = strategies.pretty(value).encode()
    assert expected == indented(json.dumps(value, ensure_ascii=False, indent=space).encode())


@given(strategies.json_values, spaces, st.booleans())
def test_white_space_between_tokens_is_removed(value: Any, space: Any, escaped: bool) -> None:  # noqa: FBT001
    written = json.dumps(value, ensure_ascii=escaped, indent=space)
    assert json.dumps(value, ensure_ascii=escaped, separators=(",", ":")).encode() == compacted(written.encode())


def test_numbers_and_strings_keep_their_bytes() -> None:
    assert b'{\n  "a" : 1e5,\n  "b" : [\n    0.1000,\n    "\\u00e4"\n  ]\n}' == indented(
        b'{"a":1e5,"b":[0.1000,"\\u00e4"]}'
    )


@given(st.lists(st.text(st.characters(categories=["Cs", "Ll"]) | st.sampled_from('"\\\0: {}'))), spaces)
def test_lone_surrogates_are_kept(value: Sequence[str], space: Any) -> None:
    written = json.dumps({name: [name] for name in value}, indent=space).encode()
    expected = json.dumps(json.loads(written), separators=(",", ":")).encode()
    assert (expected, json.loads(written)) == (compacted(written), json.loads(indented(written)))


@given(st.dictionaries(st.text('a\\":'), st.text('a\\": {}[],'), min_size=1))
def test_names_within_strings_are_not_members(value: Mapping[str, str]) -> None:
    assert strategies.pretty(value).encode() == indented(strategies.compact(value))


_torn = st.text(st.characters(categories=["Cs", "Ll"]) | st.sampled_from('"\\{}[],:bu\ufffe\U0010ffff\ud83d\n'))
_torn_values = st.recursive(
    _torn | st.integers() | st.just(1e308),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_torn, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(_torn, _torn_values, max_size=3), spaces)
def test_an_object_with_lone_surrogates_is_split(value: Mapping[str, Any], space: Any) -> None:
    body = json.dumps(value, indent=space).encode()
    members = {name: json.loads(bytes(raw)) for name, raw in members_of(body).items()}
    assert {whole(name): member for name, member in json.loads(body).items()} == members
    assert json.loads(body) == read(body)


@given(st.dictionaries(_torn, _torn_values, max_size=3))
def test_split_values_keep_their_bytes(value: Mapping[str, Any]) -> None:
    """Whatever is escaped: backslashes, other characters, or a lone surrogate."""
    members = {name: json.dumps(member).encode() for name, member in value.items()}
    body = b"{%s}" % b",".join(b"%s:%s" % (json.dumps(name).encode(), member) for name, member in members.items())
    assert list({whole(json.loads(json.dumps(name))): member for name, member in members.items()}.items()) == [
        (name, bytes(raw)) for name, raw in members_of(body).items()
    ]


@given(st.lists(_torn_values, max_size=4), spaces)
def test_an_array_with_lone_surrogates_is_split(value: Sequence[Any], space: Any) -> None:
    body = json.dumps(value, indent=space).encode()
    assert json.loads(body) == [json.loads(bytes(raw)) for raw in items_of(body)]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"7", rb'{"a":"\ud83d"', rb'["\ud83d"', rb'{"a":"\ud83d"}x', b'{"a":"\xff"']
)
def test_invalid_json_is_rejected(body: bytes) -> None:
    for reading in (members_of, items_of):
        with pytest.raises(ValueError, match=r"malformed|truncated|invalid|[Ee]xpect"):
            reading(body)


@pytest.mark.parametrize(
    ("text", "expected"), [("a\ud83d", "a?"), ("\ude00 b", "? b"), ("\U0001f600", "\U0001f600"), ("", "")]
)
def test_a_lone_surrogate_becomes_a_question_mark(text: str, expected: str) -> None:
    assert expected == whole(text)

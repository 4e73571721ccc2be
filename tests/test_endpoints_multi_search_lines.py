"""A multi-search's lines taken apart and put together; what is not certain is not taken apart."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.endpoints.multi_search_lines import (
    Item,
    Unread,
    join_lines,
    join_responses,
    query_string,
    responses,
    split,
    took,
)
from proxy.parsing.filter_path import Form, read_filter_path
from tests import strategies

HEADERS = [b"{}", b"", b" ", b'{"index":"a"}', b'{ "indices" : ["a", "b"] }', b'{"preference":"\xc3\xa4"}', b"{}\r"]
headers = st.sampled_from(HEADERS)
bodies = st.dictionaries(st.text(), strategies.json_values, max_size=3).map(strategies.compact)


@given(st.lists(st.tuples(headers, bodies), max_size=5).map(lambda items: [(b"{}", b"{}"), *items]))
def test_split_lines_are_joined_byte_for_byte(items: list[tuple[bytes, bytes]]) -> None:
    content = join_lines(items)
    read = split(content)
    assert read is not None
    assert (items, content) == (
        [(item.header, item.body) for item in read],
        join_lines([(i.header, i.body) for i in read]),
    )


@pytest.mark.parametrize(
    ("header", "indices", "parameters"),
    [
        ({}, None, {}),
        ({"index": "a"}, "a", {}),
        ({"index": "a,b*"}, "a,b*", {}),
        ({"index": ["a", "-b"]}, "a,-b", {}),
        ({"indices": ["<a-{now/d}>"]}, "%3Ca-%7Bnow%2Fd%7D%3E", {}),
        ({"index": []}, "", {}),
        ({"ignore_unavailable": True}, None, {"ignore_unavailable": "true"}),
        ({"allow_no_indices": False}, None, {"allow_no_indices": "false"}),
        ({"expand_wildcards": ["open", "hidden"]}, None, {"expand_wildcards": "open,hidden"}),
        ({"preference": "p", "routing": "r"}, None, {"preference": "p", "routing": "r"}),
        ({"routing": 7}, None, {"routing": "7"}),
    ],
)
def test_the_header_line_has_indices_and_parameters(header: Any, indices: str | None, parameters: Any) -> None:
    line = json.dumps(header).encode()
    assert (Item(line, b"{}", indices, tuple(parameters.items())),) == split(line + b"\n{}\n")


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b'{"index":"a","indices":"b"}', "index"),
        (b'{"index":7}', "index"),
        (b'{"index":[7]}', "index"),
        (b'{"index":["a","b,c"]}', "index"),
        (b'{"index":null}', "index"),
        (b'{"type":"_doc"}', "type"),
        (b'{"nonsense":1}', "nonsense"),
        (b'{"routing":{}}', "routing"),
        (b'{"routing":null}', "routing"),
        (b'{"routing":1.5}', "routing"),
        (b'{"expand_wildcards":[1]}', "expand_wildcards"),
    ],
)
def test_a_malformed_item_is_bypassed_alone(header: bytes, key: str) -> None:
    assert (Unread(header, b"{}", key), Item(b"{}", b"{}", None, ())) == split(header + b"\n{}\n{}\n{}\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}\n",
        b"{}\n{}",
        b"{}\n{}\n{}\n",
        b"\n{}\n{}\n",
        b"\n{}\n",
        b"{}\n\n",
        b"{}\n \n",
        b"[]\n{}\n",
        b"7\n{}\n",
        b"{\n{}\n",
        b'{"\xff":1}\n{}\n',
        b'{"index":"\xff"}\n{}\n',
        b"{}\n{}\n{\n{}\n",
    ],
)
def test_malformed_lines_are_left_to_the_engine(content: bytes) -> None:
    assert split(content) is None


@given(st.binary(max_size=80) | st.lists(st.sampled_from([*HEADERS, b"{", b"[]", b"x"])).map(b"\n".join))
def test_any_content_is_split_without_an_error(content: bytes) -> None:
    read = split(content)
    assert read is None or join_lines([(item.header, item.body) for item in read]) == content


def test_parameters_of_the_item_override_the_url() -> None:
    item = Item(b"", b"{}", None, (("ccs_minimize_roundtrips", "false"), ("routing", "a b")))
    url = [("typed_keys", ""), ("ccs_minimize_roundtrips", "true"), ("pretty", ""), ("max_concurrent_searches", "2")]
    assert "ccs_minimize_roundtrips=false&routing=a+b&typed_keys=&pretty=" == query_string(item, url)


def test_response_items_keep_their_bytes() -> None:
    assert [b'{"a":1e5}', b"{}"] == responses(b'{"took":3,"responses":[{"a":1e5},{}]}')
    assert [7, 0, 0, 0] == [
        took(answer) for answer in (b'{"took":7,"hits":{}}', b'{"error":{},"status":400}', b'{"took":"x"}', b"[]")
    ]


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"responses":{}}', b'{"responses":1}'])
def test_a_response_without_items_is_malformed(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)expect|truncated|malformed"):
        responses(answer)


@pytest.mark.parametrize(
    ("said", "pretty", "expected"),
    [
        ("", False, b'{"took":3,"responses":[{"a":1e5},{"b":[]}]}'),
        ("responses.a", False, b'{"responses":[{"a":1e5}]}'),
        ("-took,-responses.b", False, b'{"responses":[{"a":1e5}]}'),
        ("took", True, b'{\n  "took" : 3\n}\n'),
        ("responses.b", True, b'{\n  "responses" : [\n    {\n      "b" : [ ]\n    }\n  ]\n}\n'),
    ],
)
def test_the_response_is_written_in_the_requested_format(said: str, pretty: bool, expected: bytes) -> None:  # noqa: FBT001
    form = Form(read_filter_path(said), pretty)
    assert expected == join_responses([b'{"a":1e5}', b'{"b":[]}'], 3, form, keeps_empty=True)

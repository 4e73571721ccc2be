"""What `rerank-proxy warm` reads from a file: query texts, search bodies and logs, of any size and shape."""

import json
from io import BytesIO
from typing import Any

import pytest

from proxy.bounds import WARMED_BYTES, WARMED_LINE_BYTES, WARMED_SEARCHES
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.template import Template, read_template
from proxy.commands.warming.searches import FrequentSearches, read_searches

OWN = {"budget_ms": 60_000}
SENT = {"ext": {"rerank_proxy": OWN}}
TEMPLATE = read_template(b'{"query": {"match": {"title": "{{query}}"}}, "size": 10}', "t.json")


def match(text: str, **more: Any) -> Any:
    return {"query": {"match": {"title": text}}, **more}


def read(content: bytes, template: Template | None, top: int | None = None) -> FrequentSearches:
    return read_searches(BytesIO(content), template, OWN, top)


def bodies(*lines: Any) -> list[Any]:
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return [json.loads(body) for body in read(content.encode(), TEMPLATE)]


def test_searches_are_read_from_bodies_texts_and_log_lines() -> None:
    log = {"event.action": "search", "log.level": "info", "query": "laptop"}
    other = {"event.action": "reloaded", "log.level": "info"}
    assert [match("laptop", size=10) | SENT, match("stand") | SENT] == bodies(match("stand"), log, "", other, "laptop")


def test_texts_need_a_template_and_a_file_must_have_searches() -> None:
    with pytest.raises(CannotEvaluate, match="line 1 is a query text: name the search body for it with --template"):
        read(b"laptop", None)
    with pytest.raises(CannotEvaluate, match=r"log\.query_text"):
        read(b'{"event.action": "search"}', None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'laptop\n{"query": ', "line 2 begins like JSON, but is malformed"),
        (b"laptop\n\xff\xfe", "line 2 is not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read_is_not_taken_for_a_query_text(content: bytes, said: str) -> None:
    with pytest.raises(CannotEvaluate, match=said):
        read(content, TEMPLATE)


def test_only_the_most_frequent_searches_are_used() -> None:
    assert [match("b", size=10) | SENT] == [json.loads(body) for body in read(b"a\nb\nb\n", TEMPLATE, 1)]


def test_the_options_of_a_search_are_replaced_and_the_rest_of_ext_is_kept() -> None:
    own = match("a", ext={"rerank_proxy": {"window": 1}, "other": 1})
    assert [match("a", ext={"other": 1, "rerank_proxy": OWN})] == bodies(own)
    (without,) = read_searches(BytesIO(json.dumps(match("a", ext={"rerank_proxy": {}})).encode()), None, {})
    assert match("a") == json.loads(without)


def test_a_sample_is_spread_evenly() -> None:
    searches = read("\n".join(f"{number:02}" for number in range(10)).encode(), TEMPLATE)
    assert ["00", "02", "05", "07"] == list(searches.sample(4).found)
    assert searches.found == searches.sample(10).found == searches.sample(99).found


class Endless(BytesIO):
    """A file without an end, all of whose lines are distinct, or equal."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line, self.lines = line, 0

    def readline(self, size: int | None = -1) -> bytes:
        self.lines += 1
        return self.line.format(self.lines).encode()[: size or 0]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (Endless("x" * (WARMED_LINE_BYTES + 2)), "line 1 has more than 8 MB"),
        (Endless(" " * 10**6 + "\n"), "the file has more than 256 MB"),
        (Endless("query {}\n"), "more than 200,000 different searches"),
        (BytesIO(b'{"query": ' * 10**5), "line 1 begins like JSON, but is malformed"),
        (BytesIO(b'{"size": 1e999}'), "line 1 begins like JSON, but is malformed"),
        (BytesIO(b'{"query": "\\ud800"}'), "line 1 begins like JSON, but is malformed"),
    ],
)
def test_a_hostile_file_is_rejected_quickly(file: BytesIO, said: str) -> None:
    with pytest.raises(CannotEvaluate, match=said):
        read_searches(file, TEMPLATE, OWN)
    if isinstance(file, Endless):
        assert file.lines <= max(WARMED_SEARCHES + 1, WARMED_BYTES // 10**6 + 2)


def test_a_body_may_be_nested_up_to_the_limit() -> None:
    """What can be read can also be written."""
    for depth in range(900, 1000):
        line = b'{"a":' * depth + b"1" + b"}" * depth
        try:
            searches = read(line, None)
        except CannotEvaluate:
            continue
        assert 1 == len(list(searches))

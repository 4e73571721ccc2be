"""Documents come out of a file as they stand in it, and what is none is told by its place."""

import gzip
import io
import json
import os
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import DOCUMENT_BYTES, DOCUMENT_DEPTH, DOCUMENT_VALUES
from proxy.commands.loading.arrays import Oversized, elements
from proxy.commands.loading.documents import BadLine, Document, open_documents, read_documents
from proxy.commands.loading.errors import CannotLoad

json_values = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.lists(st.text(max_size=3))
)
sources = st.lists(st.dictionaries(st.sampled_from(["title", "body"]), json_values, max_size=2), min_size=1, max_size=3)


def read(text: bytes | str, id_field: str | None = None) -> list[Document | BadLine]:
    content = text.encode() if isinstance(text, str) else text
    return list(read_documents(cast("BinaryIO", io.BufferedReader(io.BytesIO(content))), id_field))


def only(text: bytes | str, id_field: str | None = None) -> Document:
    (document,) = read(text, id_field)
    assert isinstance(document, Document)
    return document


def causes(text: bytes | str, id_field: str | None = None) -> list[tuple[str, str]]:
    return [(entry.where, entry.cause) for entry in read(text, id_field) if isinstance(entry, BadLine)]


@given(sources)
def test_ndjson_and_arrays_are_read_plain_or_gzipped(entries: Sequence[dict[str, Any]]) -> None:
    lines = "\n".join(json.dumps(entry) for entry in entries)
    found = [entry.source for entry in read(lines) if isinstance(entry, Document)]
    assert found == entries
    array = [entry for entry in read(json.dumps(entries, indent=1)) if isinstance(entry, Document)]
    assert [entry.source for entry in array] == entries


@given(sources)
def test_a_document_without_an_id_gets_a_hash_of_its_content(entries: Sequence[dict[str, Any]]) -> None:
    """So a second run with the same file updates the same documents."""
    first, second = ([entry for entry in read(json.dumps(entries)) if isinstance(entry, Document)] for _ in "12")
    assert [entry.id for entry in first] == [entry.id for entry in second]
    assert len({entry.id for entry in first}) == len({json.dumps(entry, sort_keys=True) for entry in entries})


@pytest.mark.parametrize(
    ("line", "id_field", "identity", "source"),
    [
        ('{"_id":"a","t":1}', None, "a", {"t": 1}),
        ('{"_id":7,"t":1}', None, "7", {"t": 1}),
        ('{"id":"b","t":1}', None, "b", {"id": "b", "t": 1}),
        ('{"id":0}', None, "0", {"id": 0}),
        ('{"_id":"a","id":"b"}', None, "a", {"id": "b"}),
        ('{"sku":"c","_id":"a"}', "sku", "c", {"sku": "c"}),
        ('{"_index":"i","_id":"a","_score":1,"_source":{"t":1,"id":"b"}}', None, "a", {"t": 1, "id": "b"}),
        ('{"id":"ü/ 1"}', None, "ü/ 1", {"id": "ü/ 1"}),
    ],
)
def test_an_id_is_preserved(line: str, id_field: str | None, identity: str, source: Any) -> None:
    document = only(line, id_field)
    assert (document.id, document.source) == (identity, source)


@pytest.mark.parametrize(
    ("line", "routing"),
    [
        ('{"_id":"a"}', None),
        ('{"_id":"a","_routing":"r"}', "r"),
        ('{"_id":"a","_routing":5,"_source":{"t":1}}', "5"),
    ],
)
def test_a_routing_is_preserved_and_not_part_of_the_source(line: str, routing: str | None) -> None:
    document = only(line)
    assert document.routing == routing
    assert "_routing" not in document.source


@pytest.mark.parametrize(
    ("text", "id_field", "where", "cause"),
    [
        ('{"a":1}\n{"a":', None, "line 2", "not JSON: "),
        ("[1]\n", None, "element 1", "not a JSON object"),
        ('{"a":1}\n\n7\n', None, "line 3", "not a JSON object"),
        ('{"a":1}{"a":2}', None, "line 1", "not JSON: "),
        ('{"a":NaN}', None, "line 1", "not JSON: "),
        (b'{"a":"\xff"}', None, "line 1", "not JSON: "),
        ('{"a":' + "[" * 50_000, None, "line 1", "nested deeper than"),
        ('{"a":' + "[" * DOCUMENT_DEPTH + "]" * DOCUMENT_DEPTH + "}", None, "line 1", "nested deeper than"),
        ('{"_id":{"a":1}}', None, "line 1", "the id is neither a string nor a number"),
        ('{"_id":true}', None, "line 1", "the id is neither a string nor a number"),
        ('{"id":"' + "ü" * 257 + '"}', None, "line 1", "the id is longer than 512 bytes"),
        ('{"id":"a"}', "sku", "line 1", "has no field 'sku' for the id"),
        ('[{"a":1},"x",{"a":2}]', None, "element 2", "not a JSON object"),
    ],
)
def test_a_malformed_document_is_reported_with_position_and_cause(
    text: bytes | str, id_field: str | None, where: str, cause: str
) -> None:
    (found,) = causes(text, id_field)
    assert found[0] == where
    assert found[1].startswith(cause)


def test_lines_after_a_malformed_one_are_read() -> None:
    found = read('{"id":"a"}\nbad\n\n{"id":"b"}')
    assert [entry.id if isinstance(entry, Document) else entry.where for entry in found] == ["a", "line 2", "b"]


@pytest.mark.parametrize("text", ["", "\n \n", "[]", " [ ] "])
def test_an_empty_file_has_no_documents(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize("lead", ["", "\n\n  ", "\ufeff", "\ufeff\n"])
@pytest.mark.parametrize("text", ['{"id":"a"}', '[{"id":"a"}]'])
def test_leading_white_space_and_a_byte_order_mark_are_skipped(lead: str, text: str) -> None:
    assert only(lead + text).id == "a"


@pytest.mark.parametrize(
    "text",
    [
        '[{"id":"a"}',
        '[{"id":"a"},',
        '[{"id":"a"}, {"id":"b',
        '[{"id":"a"}, ["]',
        '[{"id":"a"}] {"id":"b"}',
        '[{"id":"a"}]]',
    ],
)
def test_a_truncated_array_yields_the_documents_before(text: str) -> None:
    found = read_documents(cast("BinaryIO", io.BufferedReader(io.BytesIO(text.encode()))))
    first = next(found)
    assert isinstance(first, Document)
    with pytest.raises(CannotLoad, match="after its element 1"):
        next(found)


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ('{"id":nope}', "not JSON: "),
        ('{"id":"x" "y"}', "not JSON: "),
        ('{"id":"x"}}', "not JSON: "),
        ('{"id":["x"}', "not JSON: "),
        ('{"id":"x"]', "not JSON: "),
        ('{"id":"x"} {"id":"y"}', "not JSON: "),
        (r'{"half a character":"\ude00 x"}', "not JSON: "),
        ('{"text":"\x01"}', "not JSON: "),
        ('{"a":NaN}', "not JSON: "),
        ("", "not JSON: "),
        ("[" * 5000 + "]" * 5000, "nested deeper than"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than"),
        ('{"a":' + "[" * 300 + "]" * 300 + "}", "nested deeper than"),
        ("7", "not a JSON object"),
        ('"],{[\\""', "not a JSON object"),
    ],
)
def test_a_malformed_element_of_an_array_is_skipped(broken: str, cause: str) -> None:
    for text in (f'[{{"id":"a"}},{broken},{{"id":"b"}}]', f'[\n{{"id":"a"}} ,\n {broken} ,\n{{"id":"b"}}\n]\n'):
        found = read(text)
        assert ["a", "element 2", "b"] == [each.id if isinstance(each, Document) else each.where for each in found]
        assert causes(text)[0][1].startswith(cause)


@given(sources, st.integers(1, 9))
def test_an_array_is_the_same_however_its_bytes_arrive(entries: Sequence[dict[str, Any]], size: int) -> None:
    content = json.dumps(entries, ensure_ascii=False).encode()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    found = [each for each in elements(iter(pieces)) if isinstance(each, bytes)]
    assert entries == [json.loads(each) for each in found]


def test_memory_does_not_grow_with_the_depth_of_a_document() -> None:
    """It once took 12.8 GB."""
    depth = 100_000
    text = b'[{"id":"a"},' + b"[" * depth + b"]" * depth + b',{"id":"b"}]'
    tracemalloc.start()
    found = [each.id if isinstance(each, Document) else each.cause for each in read(text)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ["a", "nested deeper than 200 levels", "b"] == found
    assert most < 8 * 2**20


def test_a_too_long_element_is_skipped_and_the_rest_read() -> None:
    """It is never in memory as a whole: a few KB can decompress to a gigabyte."""

    def pieces() -> Iterator[bytes]:
        yield b'[{"id":"a"},"'
        for _ in range(DOCUMENT_BYTES // 2**20 + 2):
            yield b"x" * 2**20
        yield b'",{"id":"b"}]'

    tracemalloc.start()
    found = [each if isinstance(each, bytes) else each.value for each in elements(pieces())]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [b'{"id":"a"}', "too long", b'{"id":"b"}'] == found
    assert most < DOCUMENT_BYTES * 2.5


@pytest.mark.parametrize(("form", "values"), [("%s\n", "{}"), ("%s\n", "[]"), ("[%s]", "1")])
def test_a_document_with_too_many_values_is_reported(form: str, values: str) -> None:
    text = form % ('{"a":[' + ",".join([values] * (DOCUMENT_VALUES + 1)) + "]}")
    ((_, cause),) = causes(text)
    assert f"more than {DOCUMENT_VALUES:,} values" in cause


class _Long(io.RawIOBase):
    """A line that does not fit, and a document behind it; never all in memory."""

    def __init__(self, length: int) -> None:
        self._left = self._pieces(length)

    @staticmethod
    def _pieces(length: int) -> Iterator[bytes]:
        for start in range(0, length, 2**20):
            yield b"x" * min(2**20, length - start)
        yield b'\n{"id":"b"}\n'

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = next(self._left, b"")
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_too_long_line_is_skipped_and_the_rest_read() -> None:
    stream = cast("BinaryIO", io.BufferedReader(_Long(DOCUMENT_BYTES + 10), 2**20))
    found = list(read_documents(stream))
    assert [entry.id if isinstance(entry, Document) else entry.where for entry in found] == ["line 1", "b"]


@pytest.mark.parametrize("zipped", [False, True])
def test_reading_a_file_reports_its_progress(tmp_path: Path, *, zipped: bool) -> None:
    content = b"".join(b'{"id":%d,"text":"%d"}\n' % (number, number**5) for number in range(30_000))
    path = tmp_path / "f"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with open_documents(str(path)) as file:
        found = read_documents(file.stream)
        next(found)
        assert 0 < file.position() < path.stat().st_size
        assert sum(1 for _ in found) == 29_999
        assert file.position() == file.size == path.stat().st_size


@pytest.mark.parametrize("form", ["plain", "gzip", "gzip, a member each"])
def test_a_document_is_read_when_it_has_arrived(form: str) -> None:
    """Another program may take its time for the next one."""
    reading, writing = os.pipe()
    packed = zlib.compressobj(wbits=31)

    def send(number: int) -> None:
        line = b'{"id": %d}\n' % number
        if form == "gzip":
            line = packed.compress(line) + packed.flush(zlib.Z_SYNC_FLUSH)
        elif form != "plain":
            line = gzip.compress(line)
        os.write(writing, line)

    send(0)
    with open_documents(f"/dev/fd/{reading}") as file:
        documents = read_documents(file.stream)
        for number in range(3):
            assert Document(str(number), {"id": number}, None, 10) == next(documents)
            send(number + 1)
        os.write(writing, packed.flush() if form == "gzip" else b"")
        os.close(writing)
        assert 1 == len(list(documents))
    os.close(reading)


def test_a_truncated_gzip_file_is_reported(tmp_path: Path) -> None:
    lines = b"".join(b'{"id":%d,"text":"%d"}\n' % (number, number**9) for number in range(30_000))
    (tmp_path / "f").write_bytes(gzip.compress(lines)[:-5000])
    with (
        open_documents(str(tmp_path / "f")) as file,
        pytest.raises(CannotLoad, match=r"the file cannot be read after line \d+: "),
    ):
        list(read_documents(file.stream))


def test_a_corrupt_gzip_file_is_reported(tmp_path: Path) -> None:
    zipped = bytearray(gzip.compress(b'{"id":1}\n' * 100))
    zipped[12:20] = b"\xff" * 8
    (tmp_path / "f").write_bytes(zipped)
    with open_documents(str(tmp_path / "f")) as file, pytest.raises(CannotLoad, match="the file "):
        list(read_documents(file.stream))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotLoad, match=r"none: No such file or directory\. Name a file of documents, or -"),
        open_documents(str(tmp_path / "none")),
    ):
        pass


@pytest.mark.parametrize("sign", ["[", '{"a":'])
def test_an_element_nested_too_deeply_is_skipped(sign: str) -> None:
    """A hundred thousand brackets would take gigabytes when decoded."""
    depth = 100_000
    deep = sign * depth + "1" + ("]" if sign == "[" else "}") * depth
    assert [b'"a"', Oversized.DEEP, b'"b"'] == list(elements(iter([b'["a",', deep.encode(), b',"b"]'])))

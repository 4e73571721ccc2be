"""Reads queries and relevance judgments: TREC qrels, CSV, tab-separated values or NDJSON."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from proxy.bounds import JUDGED_QUERIES, JUDGMENTS_BYTES
from proxy.commands.evaluation.errors import CannotEvaluate

HIGHEST_GRADE = 10
"""The gain is 2^grade - 1, so that a larger grade would make all others irrelevant."""

Judgments = Mapping[str, int]
"""The judged documents of a query: id to grade, 0 for a document that is not relevant."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query text, and the documents judged for it."""

    id: str
    text: str
    judgments: Judgments


@dataclass(frozen=True, slots=True)
class Collection:
    """The queries that can be evaluated, and the number of those that cannot."""

    queries: tuple[Query, ...]
    without_relevant: int = 0
    """Queries without a relevant document: their score is the same for every ranking."""
    without_text: int = 0
    """Judged queries that are missing in the file of queries."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, with the names that common tools give it, in lower case."""

    meaning: str
    names: tuple[str, ...]


# BEIR writes `query-id`, `corpus-id`, `score` and `_id`; Quepid `query`, `docid`, `rating`.
_QUERY_ID = ("query_id", "query-id", "qid", "topic")
_ID = Column("id", (*_QUERY_ID, "id", "_id"))
_TEXT = Column("text", ("text", "query", "query_text", "title"))
_QUERY = Column("query", (*_QUERY_ID, "query"))
_DOCUMENT = Column(
    "document", ("document", "document_id", "doc_id", "doc-id", "docid", "docno", "corpus-id", "doc", "product", "id")
)
_GRADE = Column("grade", ("grade", "relevance", "rating", "rel", "label", "judgment", "judgement", "score"))
_QUERY_COLUMNS = (_ID, _TEXT)
_JUDGMENT_COLUMNS = (_QUERY, _DOCUMENT, _GRADE)
_QRELS = 4
"""The columns of TREC qrels: query, iteration (ignored), document, grade."""


def read_collection(queries: Path | None, judgments: Path) -> Collection:
    """Read both files; without queries, the query in a judgment is the text itself. Raises CannotEvaluate."""
    graded = parse_judgments(_text_of(judgments), judgments.name)
    texts = parse_queries(_text_of(queries), queries.name) if queries else {query: query for query in graded}
    return joined(texts, graded)


def joined(texts: Mapping[str, str], graded: Mapping[str, Judgments]) -> Collection:
    """Join queries with their judgments; raises CannotEvaluate if no query has a relevant document."""
    queries = tuple(
        Query(name, text, graded[name]) for name, text in texts.items() if any(graded.get(name, {}).values())
    )
    if not queries:
        raise CannotEvaluate(
            "no query has a document that is judged above 0. Compare the ids of both files: the queries begin with "
            f"{_first(texts)}, the judgments with {_first(graded)}"
        )
    return Collection(queries, len(texts) - len(queries), len(graded.keys() - texts.keys()))


def _first(names: Mapping[str, Any]) -> str:
    return repr(next(iter(names), "nothing"))[:80]


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > JUDGMENTS_BYTES:
            raise CannotEvaluate(f"{path}: larger than {JUDGMENTS_BYTES >> 20} MB. Take a sample of the queries")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CannotEvaluate(f"{path}: {error.strerror}. Name a file of queries or judgments") from None
    except UnicodeDecodeError as error:
        raise CannotEvaluate(f"{path}: not UTF-8 at byte {error.start}. Convert it, as with `iconv -t UTF-8`") from None


def parse_queries(text: str, name: str) -> dict[str, str]:
    """Parse queries: text by id."""
    found: dict[str, str] = {}
    for line, (query, words) in _rows(text, name, _QUERY_COLUMNS):
        if found.setdefault(query, words) != words:
            raise CannotEvaluate(f"{name}, line {line}: query {query!r} is there already with another text. Keep one")
        if len(found) > JUDGED_QUERIES:
            raise CannotEvaluate(f"{name}: more than {JUDGED_QUERIES:,} queries. Take a sample of them")
    return found


def parse_judgments(text: str, name: str) -> dict[str, dict[str, int]]:
    """Parse judgments: grade by document, by query."""
    found: dict[str, dict[str, int]] = {}
    for line, (query, document, said) in _rows(text, name, _JUDGMENT_COLUMNS):
        grade = _grade(said, f"{name}, line {line}")
        if found.setdefault(query, {}).setdefault(document, grade) != grade:
            raise CannotEvaluate(
                f"{name}, line {line}: document {document!r} of query {query!r} is judged already with another grade. "
                "Keep one of them"
            )
    return found


def _grade(said: str, where: str) -> int:
    """Parse a grade; a negative one is 0: TREC uses it for spam."""
    try:
        number = float(said)
    except ValueError:
        number = 0.5
    if not number.is_integer() or number > HIGHEST_GRADE:
        raise CannotEvaluate(
            f"{where}: expected a grade, a whole number from 0 (not relevant) to {HIGHEST_GRADE}, not {said!r:.80}"
        )
    return max(int(number), 0)


_Rows = Iterator[tuple[int, Sequence[str]]]
_Row = tuple[int, Sequence[str]]


def _rows(text: str, name: str, columns: Sequence[Column]) -> _Rows:
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _of_objects(text, name, columns)
    if name.lower().endswith(".csv"):
        return _of_table(_comma_separated(text, name), name, columns)
    for applies, split in _SPLITS:
        if applies(first, columns):
            return _of_table(split(text, name), name, columns)
    if not first:
        raise CannotEvaluate(f"{name}: nothing in it. Name a file of queries or judgments")
    raise CannotEvaluate(
        f"{name}: neither NDJSON, CSV, tab-separated columns nor TREC qrels: it begins with {first[:80]!r}. "
        f"Write a line each with {_listed(columns)}"
    )


def _listed(columns: Sequence[Column]) -> str:
    return ", ".join(column.meaning for column in columns)


def _of_objects(text: str, name: str, columns: Sequence[Column]) -> _Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            said = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise CannotEvaluate(f"{name}, line {number}: not a JSON object. Write one per line") from None
        yield number, [_member(said, column, f"{name}, line {number}") for column in columns]


def _member(said: Mapping[str, Any], column: Column, where: str) -> str:
    value = next((said[name] for name in column.names if name in said), None)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise CannotEvaluate(f"{where}: no {column.meaning}. Name it as one of: {', '.join(column.names)}")
    return str(value)


def _of_table(rows: Iterator[_Row], name: str, columns: Sequence[Column]) -> _Rows:
    """Select the columns by the names in the first row, or otherwise by position."""
    places: Sequence[int] = ()
    for line, row in rows:
        if not places:
            places = _headed(row, columns) or _usual(row, columns)
            if _headed(row, columns):
                continue
        if len(row) <= max(places, default=0):
            raise CannotEvaluate(f"{name}, line {line}: too few columns. Write {_listed(columns)} in each line")
        yield line, [row[place].strip() for place in places]


def _headed(row: Sequence[str], columns: Sequence[Column]) -> Sequence[int]:
    """Find the columns in a row of names; none if it is a row of values."""
    names = [cell.strip().lower() for cell in row]
    found: list[int] = []
    for column in columns:
        named = [names.index(each) for each in column.names if each in names and names.index(each) not in found]
        found += named[:1]
    return found if len(found) == len(columns) else ()


def _usual(row: Sequence[str], columns: Sequence[Column]) -> Sequence[int]:
    return (0, 2, 3) if columns is _JUDGMENT_COLUMNS and len(row) == _QRELS else range(len(columns))


def _lines(text: str, split: Callable[[str], Sequence[str]]) -> Iterator[_Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, split(line.rstrip("\r"))


def _comma_separated(text: str, name: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise CannotEvaluate(f"{name}, line {reader.line_num}: not CSV: {error}") from None


def _tab_separated(text: str, _: str) -> Iterator[_Row]:
    return _lines(text, lambda line: line.split("\t"))


def _of_qrels(text: str, _: str) -> Iterator[_Row]:
    return _lines(text, str.split)


def _is_of_qrels(line: str, columns: Sequence[Column]) -> bool:
    return columns is _JUDGMENT_COLUMNS and len(line.split()) == _QRELS


_SPLITS: Sequence[tuple[Callable[[str, Sequence[Column]], bool], Callable[[str, str], Iterator[_Row]]]] = (
    (lambda line, _: "\t" in line, _tab_separated),
    (_is_of_qrels, _of_qrels),
    (lambda line, _: "," in line, _comma_separated),
)
"""How to split a line, chosen by the first line; the first match is used."""

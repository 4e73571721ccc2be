"""Queries and judgments are read from every form people keep them in, and what is wrong is named with its line."""

from pathlib import Path

import pytest

from proxy.bounds import JUDGED_QUERIES, JUDGMENTS_BYTES
from proxy.commands.evaluation.collection import (
    Collection,
    Query,
    joined,
    parse_judgments,
    parse_queries,
    read_collection,
)
from proxy.commands.evaluation.errors import CannotEvaluate

JUDGED = {"q1": {"a": 3, "b": 0}, "q2": {"a": 1}}
FORMS = {
    "qrels.txt": "q1 0 a 3\nq1 0 b 0\nq2 0 a 1\n",
    "qrels.tsv": "q1\ta\t3\nq1\tb\t0\nq2\ta\t1\n",
    "trec.tsv": "q1\t0\ta\t3\r\nq1\t0\tb\t0\r\nq2\t0\ta\t1\r\n",
    "beir.tsv": "query-id\tcorpus-id\tscore\nq1\ta\t3\nq1\tb\t0\nq2\ta\t1\n",
    "plain.csv": "q1,a,3\nq1,b,0\n\nq2,a,1\n",
    "quepid.csv": 'docid,rating,query\n"a",3.0,q1\nb,0,q1\na,1,q2\n',
    "judgments.ndjson": '{"query": "q1", "product": "a", "grade": 3}\n'
    '{"query_id": "q1", "doc_id": "b", "relevance": 0}\n{"qid": "q2", "document": "a", "rating": 1}\n',
    "judgments.jsonl": '\n{"query": "q1", "id": "a", "grade": 3}\n'
    '{"query": "q1", "id": "b", "grade": 0}\n{"query": "q2", "id": "a", "grade": 1}',
}


@pytest.mark.parametrize("name", FORMS)
def test_judgments_are_read_in_every_format(name: str) -> None:
    assert JUDGED == parse_judgments(FORMS[name], name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("queries.tsv", 'q1\tred "shoes", size 9\nq2\tboots\n'),
        ("beir.jsonl", '{"_id": "q1", "text": "red \\"shoes\\", size 9"}\n{"_id": "q2", "text": "boots"}\n'),
        ("plain.csv", 'q1,"red ""shoes"", size 9"\nq2,boots\n'),
        ("headed.csv", 'query,query_id\n"red ""shoes"", size 9",q1\nboots,q2\n'),
    ],
)
def test_queries_are_read_in_every_format(name: str, text: str) -> None:
    assert {"q1": 'red "shoes", size 9', "q2": "boots"} == parse_queries(text, name)


def test_ids_may_be_numbers() -> None:
    assert {"7": {"12": 1}} == parse_judgments('{"query": 7, "document": 12, "grade": 1}', "j.ndjson")


def test_a_grade_below_0_counts_as_0() -> None:
    """TREC's web track judges spam as -2."""
    assert {"q": {"spam": 0, "a": 1}} == parse_judgments("q 0 spam -2\nq 0 a 1", "qrels")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("q1 0 a good", "line 1: expected a grade, a whole number from 0"),
        ("q1\ta\t3\nq1\tb\t0.5\n", "line 2: expected a grade"),
        ("q1\ta\t11\n", "from 0 (not relevant) to 10, not '11'"),
        ("q1\ta\tinf\n", "expected a grade"),
        ("q1\ta\tnan\n", "expected a grade"),
        ("q1\ta\t3\nq1\tb\n", "line 2: too few columns. Write query, document, grade in each line"),
        ("q1,a,3\nq1,a,2\n", "line 2: document 'a' of query 'q1' is judged already with another grade"),
        ('{"query": "q1", "grade": 3}', "line 1: no document. Name it as one of: document, document_id"),
        ('{"query": ["q1"], "product": "a", "grade": 3}', "line 1: no query."),
        ('{"query": "q1"\n', "line 1: not a JSON object"),
        ('{"query": "\\ud800", "document": "a", "grade": 1}', "line 1: not a JSON object"),
        ("", "nothing in it"),
        ("\n  \n", "nothing in it"),
        ("one two", "neither NDJSON, CSV, tab-separated columns nor TREC qrels: it begins with 'one two'"),
    ],
)
def test_a_malformed_line_is_reported_with_its_number(text: str, said: str) -> None:
    with pytest.raises(CannotEvaluate) as caught:
        parse_judgments(text, "judged.txt")
    assert str(caught.value).startswith("judged.txt")
    assert said in str(caught.value)


def test_csv_ending_within_quotes_is_rejected() -> None:
    with pytest.raises(CannotEvaluate, match="line 2: not CSV: "):
        parse_queries('q1,red shoes\nq2,"boots', "q.csv")


def test_a_query_with_two_texts_is_rejected() -> None:
    with pytest.raises(CannotEvaluate, match="line 2: query 'q1' is there already with another text"):
        parse_queries("q1\ta\nq1\tb", "q.tsv")


def test_queries_without_a_relevant_document_are_skipped_and_counted() -> None:
    found = joined({"q1": "one", "q2": "two", "q3": "three"}, {"q1": {"a": 1}, "q2": {"a": 0}, "q9": {"a": 1}})
    assert Collection((Query("q1", "one", {"a": 1}),), without_relevant=2, without_text=1) == found


def test_ids_without_a_counterpart_are_reported() -> None:
    with pytest.raises(CannotEvaluate, match=r"the queries begin with 'q1', the judgments with '1'"):
        joined({"q1": "one"}, {"1": {"a": 1}})


def test_without_a_queries_file_the_judgments_give_the_texts(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("\ufeffq1\tred shoes\n", encoding="utf-8")
    (tmp_path / "j.csv").write_text("q1,a,3\n")
    assert read_collection(tmp_path / "q.tsv", tmp_path / "j.csv").queries == (Query("q1", "red shoes", {"a": 3}),)
    (tmp_path / "quepid.csv").write_text("query,docid,rating\nred shoes,a,3\n")
    found = read_collection(None, tmp_path / "quepid.csv")
    assert (Query("red shoes", "red shoes", {"a": 3}),) == found.queries


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotEvaluate, match=r"missing.tsv: No such file or directory\. Name a file"):
        read_collection(None, tmp_path / "missing.tsv")
    (tmp_path / "latin.tsv").write_bytes(b"q1\tcaf\xe9\t1\n")
    with pytest.raises(CannotEvaluate, match=r"latin.tsv: not UTF-8 at byte 6\. Convert it"):
        read_collection(None, tmp_path / "latin.tsv")
    with (tmp_path / "large.tsv").open("wb") as file:
        file.truncate(JUDGMENTS_BYTES + 1)
    with pytest.raises(CannotEvaluate, match="larger than 256 MB"):
        read_collection(None, tmp_path / "large.tsv")


@pytest.mark.slow
def test_too_many_queries_are_rejected() -> None:
    lines = (f"q{number}\tshoes\n" for number in range(JUDGED_QUERIES + 1))
    with pytest.raises(CannotEvaluate, match=r"more than 100,000 queries\. Take a sample"):
        parse_queries("".join(lines), "q.tsv")

"""A run file is read back by ir-measures as the ranking it was written from."""

import ir_measures

from proxy.commands.evaluation.outcomes import FailedSearch, Found
from proxy.commands.evaluation.runs import run_lines


def test_a_run_file_lists_the_ranking_in_order() -> None:
    replies: list[tuple[str, Found | FailedSearch]] = [
        ("q1", Found(("b", "a", "c"))),
        ("red shoes", Found(("d e",))),
        ("q3", FailedSearch("status 503")),
    ]
    written = "".join(run_lines(replies, "proxy"))
    assert written.splitlines()[0] == "q1 Q0 b 1 3 proxy"
    read = list(ir_measures.read_trec_run(written))  # type: ignore[no-untyped-call]
    ordered = sorted((each for each in read if each.query_id == "q1"), key=lambda each: -each.score)
    assert [each.doc_id for each in ordered] == ["b", "a", "c"]
    assert [(each.query_id, each.doc_id) for each in read[3:]] == [("red%20shoes", "d%20e")]

"""What a route keeps out of the texts for models: personal data in known forms, and no part numbers or prices."""

from typing import Any

import msgspec
import pytest

from proxy.bounds import CHUNKED_CHARACTERS, REDACTION_MARGIN
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.passages import passage_of
from proxy.outcomes import Bypass
from proxy.ranking.passages import passage_of_tokens, passage_text, two_passages
from proxy.settings.config import Config, Redact
from proxy.settings.passage_template import template_of
from proxy.settings.redaction import Redaction, redaction
from tests.conftest import Log, StartProxy
from tests.fakes import Document, FakeEngine, FakeModels, ids

SECRET = "x@example.com"
ALL = redaction(Redact(kinds=("email", "card", "phone")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail max.mustermann+shop@mail.example.co.uk now", "mail [email] now"),
        ("<o'neil@example.org>, jürgen@müller.example.", "<[email]>, [email]."),
        ("a" * 100 + "@example.com", "[email]"),
        ("paid with 4111 1111 1111 1111 12/26", "paid with [card] 12/26"),
        ("5500-0000-0000-0004,340000000000009", "[card],340000000000009"),
        ("3400 000000 00009 / 6011000000000004", "[card] / [card]"),
        ("order 4567 4111 1111 1111 1111", "order 4567 [card]"),
        ("+49 (0) 30 1234567, 0049 30 1234567", "[phone], [phone]"),
        ("+4915112345678 or +1-800-555-0199.", "[phone] or [phone]."),
        ("(555) 123-4567, 1-800-591-3869", "[phone], [phone]"),
        ("Tel.: 030 / 12 34 567", "[phone]"),
        ("call 555 1234 567 today", "[phone] today"),
        ("4111\u00a01111\u00a01111\u00a01111, 3400\u202f000000\u202f00009", "[card], [card]"),
        (
            "+49\u00a030\u202f1234567, (555)\u00a0123-4567, Tel.\u00a0030\u00a012\u202f34\u202f567",
            "[phone], [phone], [phone]",
        ),
    ],
)
def test_personal_data_is_replaced(text: str, expected: str) -> None:
    assert expected == ALL.redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "laptop 90NB0MP4-M00420 16 GB + 512 GB, 1.299,00 EUR, 1,299.00 USD",
        "GTIN 4006381333931, EAN 5901234123457, UPC 036000291452, ISBN 978-3-16-148410-0, IMEI 490154203237518",
        "HP 123456-B21, Lexmark 24B6035, Bosch 0 986 494 123, SKF 6205-2RSH, 800-456 7890",
        "Canon EOS 5D @ 30 fps, 1920x1080, 3840 x 2160, 220-240 V, 50/60 Hz, 10.000 mAh, 2022-11-29",
        "625, 635, 700, 710, 725, Fax 300/900",
        "4111 1111 1111 1112",
        "4111-1111 1111-1111",
        "order 12345678901234567890, 41111111111111111111",
        "phone case for iphone 15 pro, call of duty 4",
        "user@home, a@b, @example.com, 3@4",
        "0012345678, 0800, +5 to +40 degrees, 1+1",
        "",
    ],
)
def test_part_numbers_prices_and_sizes_are_not_replaced(text: str) -> None:
    assert text == ALL.redacted(text)


def test_nothing_is_redacted_by_default() -> None:
    assert "a@example.com" == Redaction().redacted("a@example.com")
    assert Redact() == Redact(kinds=(), patterns=(), query="redact", passage="redact")


def test_configured_patterns_come_first_and_ignore_case() -> None:
    own = redaction(Redact(kinds=("email",), patterns=(r"\bKD-\d{6}\b", "[a-z]{3}@corp")))
    assert "[redacted] and [redacted].example, [email]" == own.redacted("kd-123456 and abc@CORP.example, x@b.example")


@pytest.mark.parametrize("room", range(1, 40))
def test_truncation_leaves_no_part_of_redacted_text(room: int) -> None:
    text = "to 4111 1111 1111 1111 or someone@example.com"
    assert "to [card] or [email]"[:room] == ALL.cut(text, room)
    passage = passage_of_tokens({"t": text}, template_of(("t",)).lines, room, ALL)
    assert "to [card] or [email]".startswith(passage)


def test_a_query_may_be_bypassed_and_a_passage_omitted() -> None:
    strict = redaction(Redact(kinds=("email",), query="bypass", passage="omit"))
    assert (Bypass("sensitive"), None) == (strict.refusal("a@example.com", 100), strict.refusal("laptop", 100))
    assert strict.refusal(" " * 3000 + "a@example.com", 2000) is None  # it is not sent
    assert (True, False) == (strict.omits("a@example.com"), strict.omits("laptop"))
    assert ALL.refusal("a@example.com", 100) is None


def test_both_passages_of_a_long_document_are_redacted() -> None:
    text = f"{'word ' * 200}{SECRET} {'other ' * 200}"
    passages = two_passages({"t": text}, template_of(("t",)).lines, 60, ("other", "example"), ALL)
    assert SECRET not in "".join(passages)
    omitting = redaction(Redact(kinds=("email",), passage="omit"))
    assert () == two_passages({"t": text}, template_of(("t",)).lines, 60, ("other",), omitting)


@pytest.mark.parametrize("kind", ["email", "card"])
def test_truncation_reveals_nothing_when_redaction_shortens_the_text(kind: str) -> None:
    """A match that was cut in two is no longer recognised, and moves into view if the text before it gets shorter."""
    known, cut_one = {"email": (SECRET, "someone@ex"), "card": ("4111 1111 1111 1111", "4111 1111 1111")}[kind]
    for room in (700, 1000):
        read = room + REDACTION_MARGIN
        before = (f"{known}, " * read)[: read - len(cut_one) - 100] + " " * 100
        text = f"{before}{cut_one}{'ample.com' if kind == 'email' else ' 1111'} and more"
        assert cut_one.split("@")[0] not in ALL.cut(text, room)
        assert cut_one.split("@")[0] not in passage_text({"t": text}, template_of(("t",)).lines, room, ALL)


@pytest.mark.parametrize("tokens", range(1, 14))
@pytest.mark.parametrize(
    ("entry", "value", "secret"),
    [
        ("{{t:{}}}", "to 4111 1111 1111 1111 now", "4"),
        ("Card {{t:{}}}", "4111-1111-1111-1111", "4"),
        ("{{t:{}}} EUR", "4111  1111  1111  1111", "4"),
        ("{{t:{}}} EUR", " " * 390 + "4111 1111 1111 1111", "4"),
        ("{{t:{}}} EUR", "a" + " " * 413 + "4111 1111 1111 1111", "4"),
        ("{{t:{}}} of {{t}}", "someone@example.com", "some"),
        ("Brand: x, tel: {{t:{}}}", "030 1234567", "0"),
        ("{{t:raw,{}}}", "<b>someone@example.com", "some"),
    ],
)
def test_a_field_with_a_length_is_redacted_before_it_is_cut(entry: str, value: str, secret: str, tokens: int) -> None:
    lines = template_of((entry.format(tokens),)).lines
    assert secret not in passage_of_tokens({"t": value}, lines, 100, ALL)
    assert secret not in "".join(two_passages({"t": value}, lines, 100, (), ALL))
    omitting = redaction(Redact(kinds=("email", "card", "phone"), passage="omit"))
    assert "" == passage_of_tokens({"t": value}, lines, 100, omitting)


def test_truncated_markup_leaves_no_part_of_redacted_text() -> None:
    for length in range(40):
        text = "<br>" * 6000 + "4111 1111 1111 1111" + " " * length
        for most in range((len(text) // 8) - REDACTION_MARGIN - 12, (len(text) // 8) - REDACTION_MARGIN + 2):
            assert "4111" not in passage_text({"t": text}, template_of(("t",)).lines, most, ALL)


def test_the_second_passage_contains_no_part_of_redacted_text() -> None:
    text = "word " * 3900 + "other " + "x" * (CHUNKED_CHARACTERS - 19_506 - 12) + " 4111 1111 1111 1111 and more"
    passages = two_passages({"t": text}, template_of(("t",)).lines, 400, ("other",), ALL)
    assert "4111" not in "".join(passages)


# In the proxy


def with_redaction(settings: Config, **changes: Any) -> Config:
    redact = Redact(kinds=("email", "card", "phone"), **changes)
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], redact=redact),))


QUERY = {"query": {"match": {"title": f"laptop of {SECRET}"}}}


async def test_neither_model_receives_redacted_text(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    engine.documents = [
        Document("a", f"Laptop of {SECRET}", lexical=2.0),
        Document("b", "Laptop", lexical=1.0),
        Document("c", f"{SECRET}", lexical=0.5, cosine=0.9),
    ]
    client = await start_proxy(with_redaction(settings))
    assert "reranked" == (await client.search("/products/_search", QUERY)).header("x-rerank")
    (embedded,), (reranked,) = models.of("embed"), models.of("rerank")
    assert embedded.json()["input"][0].endswith("\nQuery:laptop of [email]")
    assert ["laptop of [email]"] == reranked.json()["queries"]
    assert ["Laptop of [email]", "[email]", "Laptop"] == sorted(reranked.json()["documents"], key=len, reverse=True)
    assert SECRET.encode() not in b"".join(asked.body for asked in models.requests)
    assert SECRET in engine.of("lexical")[0].content.decode()  # the engine searches for what was typed


CARD_AS_SENT = "4111 1111 1111 1111"


@pytest.mark.parametrize("blank", ["  ", "\u00a0", "\t"], ids=["two blanks", "a non-breaking space", "a tab"])
@pytest.mark.parametrize("way", ["redact", "bypass"])
async def test_a_query_is_redacted_as_it_is_sent(
    start_proxy: StartProxy, settings: Config, models: FakeModels, blank: str, way: str
) -> None:
    client = await start_proxy(with_redaction(settings, query=way))
    typed = f"paid with {CARD_AS_SENT.replace(' ', blank)}"
    found = await client.search("/products/_search", {"query": {"match": {"title": typed}}})
    assert (way == "bypass") == (found.header("x-rerank") == "bypassed;reason=sensitive")
    queries = [text for asked in models.of("rerank") for text in asked.json()["queries"]]
    assert ([] if way == "bypass" else ["paid with [card]"]) == queries
    assert CARD_AS_SENT.encode() not in b"".join(asked.body for asked in models.requests)


async def test_a_route_may_skip_searches_and_passages_with_personal_data(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    engine.documents = [
        Document("a", f"Laptop of {SECRET}", lexical=3.0),
        Document("b", "Laptop", lexical=2.0),
        Document("c", "Laptop stand", lexical=1.0),
    ]
    client = await start_proxy(with_redaction(settings, query="bypass", passage="omit"))
    bypassed = await client.search("/products/_search", QUERY)
    assert ("bypassed;reason=sensitive", []) == (bypassed.header("x-rerank"), models.of("rerank"))
    answered = await client.search("/products/_search", {"query": {"match": {"title": "laptop"}}})
    assert ({"a", "b", "c"}, "reranked") == (set(ids(answered)), answered.header("x-rerank"))
    assert ["Laptop", "Laptop stand"] == sorted(models.of("rerank")[0].json()["documents"])


async def test_instructions_of_requests_are_redacted(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    allowed = msgspec.structs.replace(with_redaction(settings), steering=("instruction",))
    client = await start_proxy(allowed)
    body = {"query": {"match": {"title": "laptop"}}}
    await client.search("/products/_search", body, x_rerank_instruction=f"Find what {SECRET} wants")
    assert SECRET.encode() not in b"".join(asked.body for asked in models.requests)


def test_texts_for_the_index_are_redacted_by_the_routes_rules() -> None:
    """Their hash differs from that of the original text, so `backfill` embeds them again."""
    source = {"title": f"Laptop of {SECRET}"}
    whole = passage_of(source, Embedding("v", "m", 3, ("title",)))
    redacted = passage_of(source, Embedding("v", "m", 3, ("title",), ALL))
    omitting = redaction(Redact(kinds=("email",), passage="omit"))
    assert redacted is not None
    assert whole is not None
    assert ("Laptop of [email]", True) == (redacted.text, redacted.hash != whole.hash)
    assert passage_of(source, Embedding("v", "m", 3, ("title",), omitting)) is None

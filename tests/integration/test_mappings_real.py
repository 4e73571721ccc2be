"""The files of es_mappings on a real engine: created as they are, loaded with typical documents, and searched."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from proxy.cli import main
from proxy.commands.loading.mappings import LANGUAGES, SPELLINGS, Embedding, Spelling, folder, index_for
from proxy.settings.profiles import PROFILES
from tests.integration.commands import running
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.loads import Target, ended, write
from tests.integration.sending import Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

Documents = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """Documents of a profile, searches of its kind and what each finds, its facets, and what a question means."""

    documents: Documents
    searches: Sequence[tuple[Mapping[str, Any], Sequence[str]]]
    facets: Mapping[str, Mapping[str, int]]
    question: str
    meant: str


def match(field: str, text: str) -> dict[str, Any]:
    return {"match": {field: text}}


def phrase(field: str, text: str) -> dict[str, Any]:
    return {"match_phrase": {field: text}}


def term(field: str, value: Any) -> dict[str, Any]:
    return {"term": {field: value}}


def between(field: str, **bounds: Any) -> dict[str, Any]:
    return {"range": {field: bounds}}


KINDS: Mapping[str, Kind] = {
    "e-commerce": Kind(
        [
            {
                "id": "x1",
                "title": "Lenovo ThinkPad X1-Carbon",
                "description": "A light laptop for travelling",
                "brand": "Lenovo",
                "category": "Laptops",
                "price": 1499.99,
                "rating": 4.5,
                "attributes": {"ram": "16 GB", "weight": 1.1},
                "in_stock": True,
            },
            {
                "id": "case",
                "title": "Sleeve for laptops",
                "description": "Keeps scratches away",
                "brand": "Acme",
                "category": "Accessories",
                "price": 19.5,
                "rating": 4.0,
                "attributes": {"colour": "blue"},
                "in_stock": False,
            },
        ],
        [
            (match("description", "travel"), ["x1"]),
            (match("title.model", "x1carbon"), ["x1"]),
            (match("title.model", "X1 Carbon"), ["x1"]),
            (match("category.text", "laptop"), ["x1"]),
            (term("attributes.ram", "16 GB"), ["x1"]),
            (term("brand.keyword", "Acme"), ["case"]),
            (between("price", gte=1000, lt=2000), ["x1"]),
            (between("rating", gt=4.2), ["x1"]),
        ],
        {"category": {"Laptops": 1, "Accessories": 1}, "brand.keyword": {"Lenovo": 1, "Acme": 1}},
        "notebook computer",
        "x1",
    ),
    "support": Kind(
        [
            {
                "id": "reset",
                "title": "Resetting your password",
                "question": "I cannot sign in any more",
                "answer": "Choose Forgot password and follow the mail.",
                "product": "Mail",
                "resolved": True,
                "helpful_votes": 12,
            },
            {
                "id": "print",
                "title": "Printer is offline",
                "question": "Nothing comes out",
                "answer": "Switch it off and on again.",
                "product": "Printer",
                "resolved": False,
                "helpful_votes": 3,
            },
        ],
        [
            (match("title", "reset passwords"), ["reset"]),
            (match("answer", "switches"), ["print"]),
            (term("resolved", value=True), ["reset"]),
            (between("helpful_votes", gte=10), ["reset"]),
        ],
        {"product": {"Mail": 1, "Printer": 1}},
        "locked out of my account",
        "reset",
    ),
    "academic": Kind(
        [
            {
                "id": "sleep",
                "title": "Sleep and memory in adults",
                "abstract": "We measured recall after a night of rest in 200 participants.",
                "authors": ["Zoë Müller", "A. Smith"],
                "venue": "Journal of Sleep",
                "year": 2023,
                "doi": "10.1000/182",
                "topics": ["memory"],
                "peer_reviewed": True,
            },
            {
                "id": "reefs",
                "title": "Coral reefs under stress",
                "abstract": "An overview of bleaching.",
                "authors": ["B. Jones"],
                "venue": "Ocean Letters",
                "year": 2010,
                "topics": ["ocean"],
                "peer_reviewed": False,
            },
        ],
        [
            (match("abstract", "measuring participant"), ["sleep"]),
            (match("authors", "muller zoe"), ["sleep"]),
            (term("authors.keyword", "B. Jones"), ["reefs"]),
            (term("doi", "10.1000/182"), ["sleep"]),
            (between("year", gte=2020), ["sleep"]),
            (term("peer_reviewed", value=False), ["reefs"]),
        ],
        {"venue": {"Journal of Sleep": 1, "Ocean Letters": 1}, "topics": {"memory": 1, "ocean": 1}},
        "does resting help people remember",
        "sleep",
    ),
    "legal": Kind(
        [
            {
                "id": "statute",
                "title": "Sale of Goods Act",
                "citation": "15 U.S.C. § 2301",
                "kind": "statute",
                "jurisdiction": "US",
                "binding": True,
                "status": "in force",
                "decided": "1975-01-04",
                "headnote": "Warranties for goods sold to consumers",
                "text": "A warrantor shall remedy defects without charge.",
            },
            {
                "id": "case",
                "title": "Roe v. Doe",
                "citation": "410 F.3d 113",
                "kind": "case",
                "jurisdiction": "US",
                "binding": False,
                "status": "overruled",
                "decided": "2005-06-01",
                "headnote": "Liability for a dog that bites",
                "text": "The owners were held liable.",
            },
        ],
        [
            (phrase("citation", "15 USC 2301".replace("USC", "U.S.C.")), ["statute"]),
            (phrase("citation", "410 F.3d 113"), ["case"]),
            (match("headnote", "warranty"), ["statute"]),
            (match("text.exact", "owners"), ["case"]),
            (match("text.exact", "owner"), []),
            (term("binding", value=True), ["statute"]),
            (between("decided", gte="2000-01-01"), ["case"]),
        ],
        {"kind": {"statute": 1, "case": 1}, "status": {"in force": 1, "overruled": 1}},
        "buyer rights when a product is broken",
        "statute",
    ),
    "code": Kind(
        [
            {
                "id": "parse",
                "repository": "acme/http",
                "path": "src/http/parser.py",
                "language": "python",
                "symbol": "parseHttpHeader",
                "signature": "def parse_http_header(raw: bytes) -> dict[str, str]",
                "docstring": "Splits header lines into names and values.",
                "code": "return {k: v for k, v in lines}",
                "lines": 12,
            },
            {
                "id": "sort",
                "repository": "acme/sort",
                "path": "lib/quick.c",
                "language": "c",
                "symbol": "quick_sort",
                "signature": "void quick_sort(int *a, size_t n)",
                "docstring": "Orders numbers in place.",
                "code": "swap(a, i, j);",
                "lines": 40,
            },
        ],
        [
            (match("symbol", "parse http header"), ["parse"]),
            (match("symbol", "parseHttpHeader"), ["parse"]),
            (match("signature", "parse_http_header"), ["parse"]),
            (match("docstring", "splitting"), ["parse"]),
            (match("code", "swap"), ["sort"]),
            (match("path", "src/http"), ["parse"]),
            (term("language", "c"), ["sort"]),
        ],
        {"language": {"python": 1, "c": 1}, "repository": {"acme/http": 1, "acme/sort": 1}},
        "arrange an array in ascending order",
        "sort",
    ),
    "recruitment": Kind(
        [
            {
                "id": "dev",
                "title": "Backend developer",
                "summary": "Built payment systems for eight years",
                "skills": ["C++", "Go", "PostgreSQL"],
                "experience_years": 8,
                "seniority": "senior",
                "place": {"lat": 52.52, "lon": 13.4},
                "remote": True,
            },
            {
                "id": "nurse",
                "title": "Nurse",
                "summary": "Cared for patients in intensive care",
                "skills": ["Triage", "C"],
                "experience_years": 3,
                "seniority": "junior",
                "place": {"lat": 48.1, "lon": 11.6},
                "remote": False,
            },
        ],
        [
            (match("skills", "c++"), ["dev"]),
            (match("skills", "c"), ["nurse"]),
            (match("summary", "building payments"), ["dev"]),
            (between("experience_years", gte=5), ["dev"]),
            ({"geo_distance": {"distance": "50km", "place": {"lat": 48.2, "lon": 11.5}}}, ["nurse"]),
        ],
        {
            "seniority": {"senior": 1, "junior": 1},
            "skills.keyword": {"C++": 1, "Go": 1, "PostgreSQL": 1, "Triage": 1, "C": 1},
        },
        "hospital staff",
        "nurse",
    ),
    "medical": Kind(
        [
            {
                "id": "aspirin",
                "title": "Aspirin after a heart attack",
                "abstract": "Daily aspirin lowered mortality in a randomised trial.",
                "condition": "Myocardial infarction",
                "intervention": "Aspirin",
                "evidence_level": "1b",
                "study_type": "randomised trial",
                "participants": 1700,
                "published": "1988-08-13",
            },
            {
                "id": "asthma",
                "title": "Inhalers for children with asthma",
                "abstract": "A case report of a spacer.",
                "condition": "Asthma",
                "intervention": "Salbutamol",
                "evidence_level": "4",
                "study_type": "case report",
                "participants": 1,
                "published": "2001-01-01",
            },
        ],
        [
            (match("abstract", "randomised trials"), ["aspirin"]),
            (match("abstract.exact", "trials"), []),
            (match("condition", "infarction"), ["aspirin"]),
            (term("condition.keyword", "Asthma"), ["asthma"]),
            (between("participants", gte=100), ["aspirin"]),
        ],
        {"study_type": {"randomised trial": 1, "case report": 1}, "evidence_level": {"1b": 1, "4": 1}},
        "trouble breathing",
        "asthma",
    ),
    "recommendation": Kind(
        [
            {
                "id": "space",
                "title": "Stars Beyond",
                "description": "A crew lost between galaxies",
                "tags": ["science fiction"],
                "kind": "film",
                "genres": ["adventure"],
                "creators": ["Ana Díaz"],
                "length_minutes": 121,
                "rating": 4.4,
            },
            {
                "id": "cake",
                "title": "The Baker's Year",
                "description": "Gentle stories from a small bakery",
                "tags": ["cosy"],
                "kind": "book",
                "genres": ["drama"],
                "creators": ["B. Crumb"],
                "rating": 3.9,
            },
        ],
        [
            (match("tags.text", "fictions"), ["space"]),
            (match("description", "galaxy"), ["space"]),
            (match("creators", "crumb"), ["cake"]),
            (term("tags", "cosy"), ["cake"]),
            (between("length_minutes", lte=130), ["space"]),
        ],
        {"kind": {"film": 1, "book": 1}, "genres": {"adventure": 1, "drama": 1}},
        "spaceship and astronauts",
        "space",
    ),
    "rag": Kind(
        [
            {
                "id": "a#1",
                "document_id": "a",
                "title": "Leave",
                "chunk": "Employees have thirty days of paid holidays a year.",
                "chunk_number": 1,
                "source": "handbook",
                "url": "http://intranet/leave",
            },
            {
                "id": "b#1",
                "document_id": "b",
                "title": "Travel",
                "chunk": "Trains are booked in second class.",
                "chunk_number": 1,
                "source": "policy",
            },
        ],
        [
            (match("chunk", "holiday"), ["a#1"]),
            (match("chunk", "booking train"), ["b#1"]),
            (term("document_id", "a"), ["a#1"]),
        ],
        {"source": {"handbook": 1, "policy": 1}},
        "how much vacation do I get",
        "a#1",
    ),
    "knowledge": Kind(
        [
            {
                "id": "vpn",
                "title": "Working from outside",
                "body": "Connect by VPN before opening internal pages.",
                "space": "IT",
                "kind": "guide",
                "tags": ["network"],
                "status": "current",
                "updated_at": "2026-01-05T10:00:00Z",
            },
            {
                "id": "rooms",
                "title": "Meeting rooms",
                "body": "Rooms are reserved in the calendar.",
                "space": "Office",
                "kind": "policy",
                "tags": ["office"],
                "status": "draft",
                "updated_at": "2020-01-05T10:00:00Z",
            },
        ],
        [
            (match("body", "connecting"), ["vpn"]),
            (match("title", "room"), ["rooms"]),
            (term("status", "current"), ["vpn"]),
            (between("updated_at", gte="2025-01-01"), ["vpn"]),
        ],
        {"space": {"IT": 1, "Office": 1}, "tags": {"network": 1, "office": 1}},
        "book a conference space",
        "rooms",
    ),
    "technical-docs": Kind(
        [
            {
                "id": "retry",
                "title": "Client",
                "heading": "Retrying requests",
                "body": "Set the number of attempts.",
                "code": "client = HttpClient(maxRetries=3)",
                "product": "http",
                "version": "2.1",
                "section": "guide/client/retries",
            },
            {
                "id": "install",
                "title": "Install",
                "heading": "With pip",
                "body": "Run the installer.",
                "code": "pip install http",
                "product": "http",
                "version": "1.0",
                "section": "guide/install",
            },
        ],
        [
            (match("heading", "retry request"), ["retry"]),
            (match("code", "max retries"), ["retry"]),
            (match("code", "maxRetries"), ["retry"]),
            (match("section", "guide/client"), ["retry"]),
            (term("version", "1.0"), ["install"]),
        ],
        {"version": {"2.1": 1, "1.0": 1}, "product": {"http": 2}},
        "what to do when the connection fails and I want to try again",
        "retry",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local_models() -> AsyncIterator[str]:
    """The real local models, once for these tests."""
    async with running("models", "--listen", "127.0.0.1:0") as command:
        yield (await command.until("Local models on")).split()[-1]


@pytest.fixture
def target(engine_url: str, local_models: str, index_name: str) -> Target:
    return Target(engine_url, local_models, index_name)


def ids(answer: Any) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def test_every_profile_has_typical_documents() -> None:
    assert KINDS.keys() == PROFILES.keys()


@pytest.mark.local_models
@pytest.mark.parametrize("profile", PROFILES)
async def test_a_mapping_file_works_unchanged(
    profile: str, real_engine: RealEngine, target: Target, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Created from the file or from `mapping`'s output, loaded by `index`, searched by text, facets and vectors."""
    kind = KINDS[profile]
    body = (folder() / PROFILES[profile].mapping).read_bytes()
    if not real_engine.is_elasticsearch:
        assert main(("mapping", profile, "--engine-kind", "opensearch")) == 0
        body = capsys.readouterr().out.encode()
    assert (await send(target.engine, Request("PUT", f"/{target.index}", body))).status == 200
    arguments = ("index", str(write(tmp_path / "f", *kind.documents)), "--name", target.index, *target.services)
    loaded = await ended(*arguments)
    assert loaded.code == 0, loaded.said
    assert loaded.said.startswith(f"{len(kind.documents)} documents written; vectors: {len(kind.documents)} new")
    for query, found in kind.searches:
        assert (query, ids(await target.ask("POST", "/_search", {"query": query}))) == (query, found)
    assert await _facets(target, kind.facets) == kind.facets
    nearest = real_engine.nearest("embedding", await _vector(target, kind.question), 1)
    assert ids(await target.ask("POST", "/_search", nearest)) == [kind.meant]


async def _facets(target: Target, facets: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    aggregations = {field: {"terms": {"field": field}} for field in facets}
    answer = await target.ask("POST", "/_search", {"size": 0, "aggs": aggregations})
    counted = answer["aggregations"].items()
    return {field: {bucket["key"]: bucket["doc_count"] for bucket in said["buckets"]} for field, said in counted}


async def _vector(target: Target, text: str) -> list[float]:
    body = json.dumps({"model": "m", "input": [text], "dimensions": 384}).encode()
    vector: list[float] = (await send(target.models, Request("POST", "/v1/openai/embeddings", body))).json["data"][0][
        "embedding"
    ]
    return vector


STEMS: Mapping[str, tuple[str, str]] = {
    "arabic": ("أكتاب", "اكتاب"),
    "cjk": ("東京都", "東京"),
    "danish": ("bilerne", "bil"),
    "dutch": ("boeken", "boek"),
    "english": ("laptops", "laptop"),
    "finnish": ("autot", "auto"),
    "french": ("l'ordinateurs", "ordinateur"),
    "german": ("Häuser", "Haus"),
    "hindi": ("किताबें", "किताब"),
    "hungarian": ("könyvek", "könyv"),
    "italian": ("dell'automobili", "automobile"),
    "none": ("Laptop", "laptop"),
    "norwegian": ("bilene", "bil"),
    "portuguese": ("computadores", "computador"),
    "russian": ("книги", "книга"),
    "spanish": ("ordenadores", "ordenador"),
    "swedish": ("bilarna", "bil"),
    "turkish": ("KILIÇLAR", "kılıç"),  # noqa: RUF001  its own letters
}
"""A word as it stands in a text, and as it is searched for."""


@EVERYWHERE
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_language_option_enables_stemming(language: str, real_engine: RealEngine, index_name: str) -> None:
    target = Target(real_engine.url, "", index_name)
    embedding = Embedding("embedding", "m", 3, ("title",)) if real_engine.has_knn else None
    await target.ask("PUT", "", index_for("knowledge", embedding, language, spelling_of(real_engine)))
    written, searched = STEMS[language]
    await target.put({"a": {"body": written, "title": written}, "b": {"body": "xyz"}})
    assert ids(await target.ask("POST", "/_search", {"query": match("body", searched)})) == ["a"]


@EVERYWHERE
@pytest.mark.parametrize("profile", PROFILES)
async def test_every_profile_works_without_vectors_and_language(
    profile: str, real_engine: RealEngine, index_name: str
) -> None:
    body = index_for(profile, None, "none", spelling_of(real_engine))
    await Target(real_engine.url, "", index_name).ask("PUT", "", body)


def spelling_of(engine: RealEngine) -> Spelling:
    return SPELLINGS["elasticsearch" if engine.is_elasticsearch else "opensearch"]

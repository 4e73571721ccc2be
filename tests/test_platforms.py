"""The searches of platforms, by their form: each is read, by all of the typed words, and relaxed for kNN.

The forms are those of the platforms' query builders; fields, words and values are this project's own. The platforms
themselves have not been run. docs/platforms.md says the same to their users.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.parsing.query_text import UserQuery, find_user_query
from proxy.parsing.search_request import SearchRequest, parse
from tests.strategies import compact

TEXT = "quiet ceiling fan"
WORDS = TEXT.split()
PASSAGE = ("name", "details")
KEYWORDS = frozenset({"kind", "kind.raw", "shop"})
IN_SHOP = {"term": {"shop": "de"}}
DOCS = Path(__file__).parent.parent / "docs" / "platforms.md"


def multi(fields: Sequence[str] = ("name^5", "details"), **more: Any) -> Any:
    return {"multi_match": {"query": TEXT, "fields": list(fields), **more}}


def _magento() -> Any:
    prefixes = [{"match_phrase_prefix": {field: {"query": TEXT, "boost": 2}}} for field in ("name", "sku")]
    full = [{"match": {field: {"query": TEXT, "boost": 2}}} for field in ("sku", "_search", "details")]
    return {
        "query": {
            "bool": {
                "must": [{"terms": {"kind": ["3", "4"]}}],
                "should": [*full, *prefixes],
                "minimum_should_match": 1,
            }
        },
        "stored_fields": "_none_",
        "docvalue_fields": ["_id", "_score"],
        "sort": [
            {"_score": {"order": "desc"}},
            {"_script": {"type": "number", "script": "Long.parseLong(doc['_id'].value)", "order": "desc"}},
        ],
    }


def _elasticsuite() -> Any:
    sieve, words = multi(("search^1", "sku^1"), minimum_should_match="100%"), multi(("search", "name^5"))
    inner = {"filter": sieve, "must": words, "must_not": [], "should": [], "minimum_should_match": 1}
    outer = {"filter": [{"bool": {"must": [IN_SHOP]}}], "must": [{"bool": inner}], "should": [], "must_not": []}
    by_id = {"entity_id": {"order": "desc", "missing": "_first", "unmapped_type": "keyword"}}
    return {"query": {"bool": outer}, "sort": [{"_score": {"order": "desc"}}, by_id], "from": 0, "size": 24}


def _shopware() -> Any:
    def word(text: str) -> Any:
        field = "name.7c3a.search"
        forms = [
            {"match": {field: {"query": text, "boost": 900, "fuzziness": 0}}},
            {"match_phrase_prefix": {field: {"query": text, "boost": 700, "slop": 3}}},
            {"match": {field: {"query": text, "boost": 500, "fuzziness": "auto"}}},
            {"match": {"name.7c3a.ngram": {"query": text, "boost": 300}}},
        ]
        maker = {"nested": {"path": "maker", "query": {"match": {"maker.name": text}}}}
        return {"bool": {"should": [{"dis_max": {"queries": [{"bool": {"should": forms}}]}}, maker]}}

    query = {"bool": {"filter": [IN_SHOP], "must": [{"bool": {"must": [word(each) for each in WORDS]}}]}}
    return {"query": query, "sort": [{"_score": {"order": "DESC"}}], "size": "24"}


def _spryker() -> Any:
    words = multi(("details", "name^3"), type="cross_fields")
    return {
        "query": {"bool": {"must": [words], "filter": [{"match": {"kind": {"query": "product"}}}, IN_SHOP]}},
        "post_filter": {"bool": {"filter": [{"nested": {"path": "facet", "query": {"term": {"facet.v": "x"}}}}]}},
    }


def _sylius() -> Any:
    option = {"nested": {"path": "colour", "query": multi(["colour.value^2"], fuzziness="AUTO")}}
    code = {"term": {"kind": TEXT}}
    words = {"bool": {"should": [code, multi(type="most_fields", fuzziness="AUTO"), option]}}
    boosts = [{"filter": {"term": {"in_stock": True}}, "weight": 5}]
    query = {"function_score": {"query": {"bool": {"filter": [IN_SHOP], "must": [words]}}, "functions": boosts}}
    return {"query": query, "post_filter": {"bool": {}}, "sort": [{"_score": {"order": "desc"}}]}


def _searchkick() -> Any:
    def forms(field: str) -> Any:
        for analyzer in ("one", "two"):
            yield {"match": {field: {"query": TEXT, "boost": 10, "operator": "and", "analyzer": analyzer}}}
            yield {"match": {field: {"query": TEXT, "boost": 1, "fuzziness": 1, "max_expansions": 3}}}

    words = {"dis_max": {"queries": [*forms("name.analyzed"), *forms("details.analyzed")]}}
    clicks = {"function_score": {"query": {"match": {"clicks.query": TEXT}}, "boost_mode": "replace"}}
    inner = {"bool": {"must": words, "should": [{"nested": {"path": "clicks", "query": clicks}}]}}
    return {"query": {"bool": {"must": {"function_score": {"query": inner, "functions": []}}, "filter": [IN_SHOP]}}}


def _elasticpress() -> Any:
    forms = [multi(type="phrase", boost=4), multi(operator="and", boost=2), multi(fuzziness=1)]
    kind = {"bool": {"must": [{"bool": {"should": forms}}], "filter": [{"match": {"kind.raw": "post"}}]}}
    fresh = {"exp": {"post_date_gmt": {"scale": "14d", "decay": 0.25}}}
    return {"query": {"function_score": {"query": {"bool": {"should": [kind]}}, "functions": [fresh]}}}


def _search_ui() -> Any:
    forms = [multi(type=kind) for kind in ("best_fields", "cross_fields", "phrase", "phrase_prefix")]
    return {"query": {"bool": {"must": [{"bool": {"should": forms}}], "filter": []}}, "sort": "_score"}


def _searchkit() -> Any:
    forms = [multi(fuzziness="AUTO:4,8"), multi(type="bool_prefix")]
    return {"query": {"bool": {"must": [{"bool": {"should": forms}}], "filter": [IN_SHOP]}}}


def _reactivesearch() -> Any:
    forms = [multi(type=kind, operator="or") for kind in ("best_fields", "phrase", "phrase_prefix")]
    words = {"bool": {"should": forms, "minimum_should_match": "1"}}
    facet = {"bool": {"should": [{"terms": {"kind": ["a", "b"]}}]}}
    return {"query": {"bool": {"must": [{"bool": {"must": [words, facet]}}]}}}


def _spring_data() -> Any:
    line = {"query_string": {"query": r"*quiet\ ceiling\ fan*", "fields": ["name^1.0"], "analyze_wildcard": True}}
    return {"query": {"bool": {"must": [line]}}, "version": True, "explain": False}


def _haystack() -> Any:
    line = {"query": f"({TEXT} AND NOT (desk))", "default_field": "details", "default_operator": "AND"}
    return {"query": {"bool": {"must": {"query_string": line}, "filter": {"terms": {"kind": ["shop.item"]}}}}}


def _drupal() -> Any:
    line = {"query": '("quiet" AND "ceiling" AND "fan")', "fields": ["name^8.0", "details^1.0"]}
    return {"query": {"bool": {"must": {"query_string": line}}}, "sort": {"_score": "desc", "id": "asc"}}


def _wagtail() -> Any:
    phrase = multi(["_all_text"], type="phrase")
    phrase["multi_match"]["query"] = "quiet ceiling"
    rest = {"match": {"_all_text": {"query": "fan", "fuzziness": "AUTO"}}}
    filters = [{"match": {"kind": "blog.BlogPage"}}, {"bool": {"must": [{"term": {"live": True}}]}}]
    query = {"bool": {"must": {"bool": {"must": [phrase, rest]}}, "filter": filters}}
    return {"query": query, "_source": False, "stored_fields": "pk"}


def _laravel_scout() -> Any:
    query = {"bool": {"filter": [IN_SHOP], "must": [{"query_string": {"query": TEXT}}]}}
    return {"query": query, "from": 0, "size": 15, "_source": False}


def _hibernate_search() -> Any:
    line = {"query": TEXT, "default_operator": "and", "fields": ["name^2.0", "details"], "flags": "all"}
    query = {"bool": {"must": [{"simple_query_string": line}], "filter": [IN_SHOP]}}
    return {"query": query, "_source": False, "docvalue_fields": ["kind"]}


def _vendure() -> Any:
    words = multi(["name^5", "details^1", "sku^1"], fuzziness="AUTO", type="best_fields")
    return {"query": {"bool": {"must": [words], "filter": [IN_SHOP]}}, "sort": [], "collapse": {"field": "kind"}}


def _nextcloud() -> Any:
    def word(text: str) -> Any:
        prefixes = [{"match_phrase_prefix": {field: text}} for field in ("details", "name")]
        return {"bool": {"should": [*prefixes, {"wildcard": {"name": f"*{text}*"}}]}}

    words = {"bool": {"should": {"bool": {"must": [word(each) for each in WORDS]}}}}
    access = {"bool": {"should": [IN_SHOP, {"term": {"kind": "__all"}}]}}
    return {"query": {"bool": {"must": words, "filter": [access]}}, "highlight": {"fields": {"details": {}}}}


def _moodle() -> Any:
    words = {"simple_query_string": {"query": TEXT, "fields": ["id", "name", "details", "filetext"]}}
    course = {"match": {"courseid": {"query": 7, "boost": 10}}}
    allowed = {"bool": {"must": [IN_SHOP]}}
    query = {"bool": {"must": [words], "should": [course], "filter": allowed}}
    return {"query": query, "_source": {"excludes": ["filetext"]}}


def _geonetwork() -> Any:
    line = f'(any.\\*:({TEXT}) OR name.default:({TEXT})^2) AND (kind:("dataset"))'
    access = {"query_string": {"query": "(shop:(de)) AND (draft:n)"}}
    words = {"bool": {"must": [{"query_string": {"query": line}}], "filter": [IN_SHOP, access]}}
    functions = [{"filter": {"match": {"kind": "series"}}, "weight": 1.5}]
    return {"query": {"function_score": {"query": words, "functions": functions}}, "sort": ["_score"]}


def _datahub() -> Any:
    line = {"query": TEXT, "fields": ["name.delimited^6.4", "details.delimited^0.4"], "flags": -1}
    words = [
        {"bool": {"should": [{"simple_query_string": {**line, "default_operator": "and"}}]}},
        {"bool": {"should": [{"match_phrase": {"name.delimited": {"query": TEXT, "boost": 6}}}]}},
        {"bool": {"should": [{"term": {"kind": TEXT}}, {"match_phrase_prefix": {"name.delimited": TEXT}}]}},
    ]
    removed = {"bool": {"must_not": [{"match": {"removed": {"query": True}}}]}}
    query = {"bool": {"must": [{"bool": {"should": words, "minimum_should_match": "1"}}], "filter": [IN_SHOP, removed]}}
    return {"query": {"function_score": {"query": query, "functions": [{"weight": 1.0}]}}, "sort": ["_score", "kind"]}


def _mediawiki() -> Any:
    line = {"query": TEXT, "fields": ["all.plain^1", "all^0.5"], "default_operator": "AND"}
    query = {"bool": {"must": [{"query_string": line}], "filter": [IN_SHOP]}}
    links = {"script_score": {"script": {"lang": "expression", "source": "log10(doc['links'].value + 2)"}}}
    phrase = {"multi_match": {"query": TEXT, "fields": ["all.plain"], "type": "phrase", "slop": 1}}
    rescores = [phrase, {"function_score": {"functions": [links]}}]
    return {
        "query": query,
        "rescore": [{"window_size": 512, "query": {"rescore_query": each}} for each in rescores],
        "stats": ["full_text"],
    }


def _ragflow() -> Any:
    line = '(quiet^0.3 ) (ceiling^0.3 "roof"^0.1) (fan^0.4 ) "quiet ceiling"^0.6 "ceiling fan"^0.8'
    words = {"query_string": {"fields": ["name^10", "details"], "type": "best_fields", "query": line, "boost": 1}}
    shown = {"must_not": {"range": {"shown": {"lt": 1}}}}
    return {"query": {"bool": {"must": [words], "filter": [{"terms": {"kind": ["a"]}}, {"bool": shown}]}}, "size": 64}


def _retrievers() -> Any:
    """LangChain, LlamaIndex and Haystack: one clause on the text, beside filters on its metadata."""
    words = {"multi_match": {"query": TEXT, "fuzziness": "AUTO", "type": "most_fields", "operator": "OR"}}
    allowed = {"bool": {"must": [IN_SHOP, {"range": {"year": {"gt": 2020}}}]}}
    return {"query": {"bool": {"must": [words], "filter": allowed}}, "_source": {"excludes": ["embedding"]}, "size": 4}


def _mastodon() -> Any:
    forms = [
        {"match": {"name": {"query": TEXT, "analyzer": "word_join_analyzer"}}},
        multi(["details", "details.*"], type="best_fields", operator="and"),
    ]
    log = {"script_score": {"script": {"source": "Math.log10(doc['followers'].value + 1)"}}}
    inner = {"bool": {"must": [{"dis_max": {"queries": forms, "tie_breaker": 0.5}}, IN_SHOP], "must_not": []}}
    query = {"function_score": {"query": inner, "functions": [log]}}
    return {"query": {"bool": {"must": query, "should": [{"terms": {"id": [1, 2], "boost": 100}}]}}, "timeout": "10s"}


def _openmetadata() -> Any:
    exact = {"bool": {"should": [{"term": {"kind": {"value": TEXT, "boost": 20}}}]}}
    phrases = {"bool": {"should": [{"match_phrase": {"name": {"query": TEXT, "boost": 15}}}]}}
    words = multi(type="most_fields", fuzziness="1", minimum_should_match="2<70%", tie_breaker=0.3)
    forms = {"bool": {"should": [exact, phrases, words, multi(["name.ngram"])], "minimum_should_match": "1"}}
    functions = [{"filter": {"term": {"tier": "1"}}, "weight": 15}]
    scored = {"function_score": {"query": {"bool": {"must": [forms]}}, "functions": functions, "boost_mode": "sum"}}
    return {"query": {"bool": {"must": [scored], "filter": [IN_SHOP]}}, "aggs": {"k": {"terms": {"field": "kind"}}}}


def _backstage() -> Any:
    words = {"multi_match": {"fields": ["*"], "query": TEXT, "fuzziness": "auto", "minimum_should_match": 1}}
    kinds = {"bool": {"should": [{"match": {"kind": "a"}}, {"match": {"kind": "b"}}]}}
    highlight = {"fields": {"*": {}}, "number_of_fragments": 1}
    return {"query": {"bool": {"filter": [IN_SHOP, kinds], "must": [words]}}, "highlight": highlight, "size": 25}


def _gitea() -> Any:
    forms = [multi(["details"], operator="and"), multi(["name^10"], type="phrase_prefix")]
    query = {"bool": {"must": [{"bool": {"should": forms}}, {"terms": {"repo": [1, 2]}}, IN_SHOP]}}
    return {"query": query, "sort": [{"_score": {"order": "desc"}}, {"updated": {"order": "asc"}}]}


def _wiki_js() -> Any:
    line = {"query": f"*{TEXT}*", "fields": ["name^20", "details^1"], "default_operator": "and"}
    return {"query": {"simple_query_string": {**line, "analyze_wildcard": True}}, "size": 50, "explain": True}


def _open_vsx() -> Any:
    forms = [
        {"term": {"kind": {"value": TEXT, "case_insensitive": True, "boost": 10}}},
        multi(boost=5),
        multi(fuzziness="AUTO", prefix_length=2),
        {"prefix": {"name": {"value": TEXT}}},
    ]
    query = {"bool": {"must": [{"bool": {"should": forms, "boost": 2}}, IN_SHOP]}}
    relevance = [{"field_value_factor": {"field": "relevance", "factor": 1}}]
    return {"query": {"function_score": {"query": query, "functions": relevance}}, "sort": [{"_score": "desc"}]}


def _opencti() -> Any:
    stars = " ".join(f"{word}*" for word in WORDS)
    line = {"query": stars, "analyze_wildcard": True, "fields": ["name^5", "details^2"]}
    phrase = {"multi_match": {"type": "phrase", "query": stars, "lenient": True, "fields": ["name^5", "details"]}}
    nested = {"nested": {"path": "links", "query": {"query_string": {**line, "fields": ["links.*"]}}}}
    forms = {"bool": {"should": [{"query_string": line}, phrase, nested], "minimum_should_match": 1}}
    return {"query": {"bool": {"must": [IN_SHOP, forms]}}, "sort": [{"_score": "desc"}, {"kind": "asc"}]}


def _liferay() -> Any:
    def field(path: str) -> Any:
        forms = ("match", "match_phrase", "match_phrase_prefix")
        return {"bool": {"should": [{form: {path: {"query": TEXT, "boost": 2}}} for form in forms]}}

    words = {"bool": {"should": [field("name"), field("details"), {"term": {"kind": {"value": TEXT}}}]}}
    access = {"bool": {"should": [{"bool": {"must": [{"term": {"kind": "a"}}, IN_SHOP]}}]}}
    query = {"bool": {"must": [{"bool": {"must": [words]}}], "filter": [access]}}
    return {"query": query, "stored_fields": "*", "_source": True, "track_scores": True, "sort": ["_score"]}


def _plone() -> Any:
    forms = [
        {"match_phrase": {"details": {"query": TEXT, "slop": 2}}},
        {"match_phrase_prefix": {"name": {"query": TEXT, "boost": 2}}},
        {"match": {"details": {"query": TEXT}}},
    ]
    query = {"bool": {"filter": [IN_SHOP], "should": forms, "minimum_should_match": 1}}
    return {"query": query, "sort": ["_score"], "stored_fields": ["path"]}


def _neos() -> Any:
    words = {"query_string": {"query": TEXT, "fields": ["name*", "details*"]}}
    allowed = {"bool": {"must": [IN_SHOP], "should": [], "must_not": [{"range": {"hidden_before": {"gt": "now"}}}]}}
    return {"query": {"bool": {"must": [{"match_all": {}}, words], "filter": allowed}}, "size": 20}


def _vue_storefront() -> Any:
    words = multi(operator="or", fuzziness="2", max_expansions="3", minimum_should_match="75%")
    sku = {"bool": {"should": [{"terms": {"kind": [TEXT]}}, {"match_phrase": {"sku": {"query": TEXT, "boost": 1}}}]}}
    functions = [{"filter": {"match": {"in_stock": True}}, "weight": 1.5}]
    scored = {"function_score": {"query": {"bool": {"should": [words, sku]}}, "functions": functions}}
    return {"query": {"bool": {"must": scored, "filter": {"bool": {"must": [IN_SHOP]}}}}, "sort": ["_score"]}


def _optimizely() -> Any:
    boosts = [
        multi(operator="or", type="phrase", boost=2),
        {"match": {"name": {"query": TEXT, "boost": 10, "lenient": True}}},
        {"match": {"kind": {"query": "page", "boost": 3}}},
    ]
    allowed = {"bool": {"must": [IN_SHOP], "must_not": [{"match": {"kind": "draft"}}]}}
    query = {"bool": {"must": [multi(operator="or", lenient=True)], "should": boosts, "filter": [allowed]}}
    return {"query": query, "suggest": {"spelling": {"text": TEXT, "phrase": {"field": "name"}}}}


PLATFORMS: Mapping[str, Any] = {
    "Magento 2": _magento(),
    "ElasticSuite": _elasticsuite(),
    "Shopware 6": _shopware(),
    "Spryker": _spryker(),
    "Sylius": _sylius(),
    "searchkick": _searchkick(),
    "ElasticPress": _elasticpress(),
    "Search UI": _search_ui(),
    "Searchkit": _searchkit(),
    "ReactiveSearch": _reactivesearch(),
    "Spring Data": _spring_data(),
    "django-haystack": _haystack(),
    "Drupal": _drupal(),
    "Wagtail": _wagtail(),
    "Laravel Scout": _laravel_scout(),
    "Hibernate Search": _hibernate_search(),
    "Vendure": _vendure(),
    "Nextcloud": _nextcloud(),
    "Moodle": _moodle(),
    "GeoNetwork": _geonetwork(),
    "DataHub": _datahub(),
    "MediaWiki": _mediawiki(),
    "RAGFlow": _ragflow(),
    "LangChain, LlamaIndex, Haystack": _retrievers(),
    "Mastodon": _mastodon(),
    "OpenMetadata": _openmetadata(),
    "Backstage": _backstage(),
    "Gitea": _gitea(),
    "Wiki.js": _wiki_js(),
    "Open VSX": _open_vsx(),
    "OpenCTI": _opencti(),
    "Liferay": _liferay(),
    "Plone": _plone(),
    "Neos": _neos(),
    "Vue Storefront": _vue_storefront(),
    "Optimizely": _optimizely(),
}


def read(body: Any) -> tuple[SearchRequest, UserQuery]:
    request = parse("", compact(body))
    assert isinstance(request, SearchRequest), request
    user_query = find_user_query(request.query, PASSAGE, lambda path: path not in KEYWORDS)
    assert user_query is not None
    return request, user_query


@pytest.mark.parametrize("body", PLATFORMS.values(), ids=PLATFORMS)
def test_all_typed_words_are_found_in_a_platforms_search(body: Any) -> None:
    _, user_query = read(body)
    assert (TEXT, False, "") == (user_query.text, user_query.autocomplete, user_query.unrelaxed)


@pytest.mark.parametrize("body", PLATFORMS.values(), ids=PLATFORMS)
def test_only_the_typed_words_are_relaxed_in_a_platforms_search(body: Any) -> None:
    """A boost for another document's clicks requires nothing, so it may keep the query text."""
    _, user_query = read(body)
    relaxed = compact(user_query.relaxed).decode()
    assert not any(f'"query":"{text}"' in relaxed for text in (TEXT, *WORDS))
    assert all(kept in relaxed for kept in ('"shop":"de"', "(desk)") if kept in compact(body).decode())


def test_the_platforms_page_names_each_platform() -> None:
    page = DOCS.read_text(encoding="utf-8")
    assert [] == [name for name in PLATFORMS if f"| {name} |" not in page]

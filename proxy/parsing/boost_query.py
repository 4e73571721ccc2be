"""The client's query with its words made one constant: what is left of its scores is what it says beyond the words.

The engine scores it: margins, stock, campaigns, pins (`function_score`, optional clauses, `boosting`). Clauses that are
required and say nothing but which documents match become filters, which add nothing to a score.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from proxy.bounds import KEYWORD_CHARACTERS
from proxy.parsing.compound_queries import COMPOUNDS, Role, ids_above, listed, role_of_should
from proxy.parsing.leaf_queries import LEAVES
from proxy.parsing.query_string import FieldKinds
from proxy.parsing.readings import Clause, Reading
from proxy.parsing.scripts import functions_ignore_score, ignores_score
from proxy.parsing.words import Query, fold

WORDS: Query = {"match_all": {}}
"""Stands for the words until their constant is known; told from other queries by identity."""


@dataclass(frozen=True, slots=True)
class BoostQuery:
    """A query whose scores differ only by what it says beyond the words."""

    query: Query
    random: bool = False
    """A `random_score` without a seed was removed: no second search gives the same numbers."""
    alone: bool = False
    """The client's own scores do not depend on the words."""
    rescores: Sequence[Query] = ()
    """What the client's `rescore` says beyond the words, in the order in which the engine applies it."""

    def with_constant(self, score: float) -> Query:
        """Return the query with this score in place of the words."""
        filled: Query = _filled(self.query, {"match_all": {"boost": score}})
        return filled

    def rescored(self, score: float, size: int) -> list[Query]:
        """Return `rescore` for this many hits, with this score in place of the words."""
        words = {"match_all": {"boost": score}}
        return [{"window_size": size, "query": _filled(each, words)} for each in self.rescores]


def boost_query(query: Any, reading: Reading, leaves: Mapping[int, Reading | None]) -> BoostQuery | None:
    """Rewrite a query; None where its words say all, or are in no clause that makes the score.

    `leaves` is what was read of its clauses with words, by identity.
    """
    pins = frozenset(_pins(reading, leaves))
    clauses = frozenset(id(clause.query) for clause in reading.clauses) - pins
    try:
        rewriter = _Rewriter(reading, frozenset(reading.words), leaves, clauses, pins, ids_above(query, clauses))
        found = rewriter.part(query)
    except RecursionError:
        return None
    if not found.has_words or not (found.has_more or found.alone or rewriter.random):
        return None
    return BoostQuery(found.query, bool(rewriter.random), found.alone)


def rescore_boosts(
    boosts: BoostQuery | None, rescores: Sequence[Any], reading: Reading, leaves: Mapping[int, Reading | None]
) -> BoostQuery | None:
    """Add what the entries of a `rescore` say beyond the words of the reading."""
    nothing = frozenset[int]()
    rewriter = _Rewriter(reading, frozenset(reading.words), leaves, nothing, nothing, nothing)
    try:
        found = [entry for entry in map(rewriter.rescore, rescores) if entry is not None]
    except RecursionError:
        return boosts
    return replace(boosts or BoostQuery(WORDS), rescores=found) if found else boosts


_PIN = 100
"""How many times more a clause weighs than the words in the passage if it puts documents on top."""


def _pins(reading: Reading, leaves: Mapping[int, Reading | None]) -> Iterator[int]:
    """Yield the ids of clauses with the words that pin: in fields outside the passage, such as one of best bets."""
    within, outside = 0.0, []
    for clause in reading.clauses:
        found = leaves.get(id(clause.query))
        if found is None or found.touches:
            within = max(within, _weight(clause))
        else:
            outside.append(clause)
    if within:
        yield from (id(clause.query) for clause in outside if clause.boost >= _PIN * within)


def _weight(clause: Clause) -> float:
    """Return the boost of a clause, with that of its heaviest field."""
    ((_, body),) = clause.query.items()
    boosts = [field.partition("^")[2] for field in listed(body.get("fields")) if isinstance(field, str)]
    return clause.boost * max([float(boost) for boost in boosts if _NUMBER.fullmatch(boost)], default=1.0)


_NUMBER = re.compile(r"\d{1,9}(?:\.\d{0,9})?")


def _filled(query: Any, words: Query) -> Any:
    if query is WORDS:
        return words
    match query:
        case dict():
            return {
                key: _filled(value, words) if isinstance(value, dict | list) else value for key, value in query.items()
            }
        case list():
            return [_filled(value, words) if isinstance(value, dict | list) else value for value in query]
        case _:
            return query


class _Part(NamedTuple):
    """A clause rewritten."""

    query: Any
    has_words: bool = False
    """Its score contains the constant of the query text."""
    has_more: bool = True
    """Its score contains something else."""
    alone: bool = False
    """It matches by the query text, but its score does not depend on it."""


_PLAIN = _Part(WORDS, has_words=True, has_more=False)
_FUNCTIONS = ("script_score", "field_value_factor", "random_score", "gauss", "linear", "exp")
_PATTERNS = frozenset({"prefix", "wildcard", "fuzzy", "regexp"})
_SCORING = frozenset({"function_score", "script_score", "boosting", "rank_feature", "distance_feature"})
"""Queries whose score says more than that a document matches."""


@dataclass(frozen=True, slots=True)
class _Rewriter:
    reading: Reading
    words: frozenset[str]
    """Those of the reading."""
    leaves: Mapping[int, Reading | None]
    clauses: AbstractSet[int]
    pins: AbstractSet[int]
    above: frozenset[int]
    """The ids of the clauses, and of all queries that contain one."""
    random: list[Any] = field(default_factory=list)

    def part(self, query: Any) -> _Part:
        """Rewrite a clause that counts in the score, bottom-up."""
        match query:
            case dict() if len(query) == 1:
                ((name, body),) = query.items()
                if isinstance(body, dict):
                    return _PLAIN if self._is_words(query, name, body) else self._compound(query, name, body)
        return _Part(query)

    def rescore(self, entry: Any) -> Query | None:
        """Rewrite an entry of `rescore`; None where it says nothing beyond the words, or a trained model says it."""
        match entry:
            case {"query": {"rescore_query": dict() as query}} if "sltr" not in query:
                part, said = self.part(query), entry["query"]
                return {**said, "rescore_query": part.query} if part.has_more else None
            case _:
                return None

    def _compound(self, query: Query, name: str, body: Query) -> _Part:
        found: _Part | None = None
        match name:
            case "bool":
                found = self._bool(body)
            case "dis_max":
                found = self._alternatives(body)
            case "function_score":
                found = self._function_score(body)
            case "script_score":
                found = self._script_score(body)
            case "boosting":
                found = self._boosting(body)
            case "nested" | "has_child" | "has_parent":
                found = self._joined(name, body)
            case "constant_score":
                found = _PLAIN if self.part(body.get("filter")).has_words else None
            case "pinned" | "rule" | "rule_query":  # what they put on top stays there: see `paging.pinned_first`
                found = self.part(body.get("organic"))
            case _:
                pass
        return found or _Part(query, has_more=name not in {"match_all", "match_none"})

    def _is_words(self, query: Query, name: str, body: Query) -> bool:
        """Whether a clause has the query text, a part of it, or other text in the same fields (synonyms)."""
        if id(query) in self.clauses or id(query) in self.pins:
            return id(query) in self.clauses
        if name == "term":
            return _text_of_term(body) == self.reading.words
        if (name in _PATTERNS and (text := _text_of_term(body))) or (text := _text_like(name, body)):
            return self.words.issuperset(text)
        leaf = LEAVES.get(name)
        if leaf is None or leaf.last_resort:
            return leaf is not None
        if (found := self.leaves.get(id(query))) is not None:
            return self._has_its_words(found) or _is_in_fields_of(found, self.reading)
        read = leaf.read(name, body, FieldKinds(lambda _: True))  # in fields without analysed text
        return read is not None and _folded(read[0].text) == self.reading.words

    def _has_its_words(self, found: Reading) -> bool:
        """Whether a text has no other words than the query text."""
        return self.words.issuperset(found.words)

    def _boosting(self, body: Query) -> _Part | None:
        inner = self.part(body.get("positive"))
        rewritten = {"boosting": _without(body, "_name") | {"positive": inner.query}}
        return inner._replace(query=rewritten, has_more=True) if inner.has_words else None

    def _joined(self, name: str, body: Query) -> _Part | None:
        """Words in parts or in other documents, which need not be there where nothing else is said of them."""
        inner = self.part(body.get("query"))
        if not inner.has_words or not (inner.has_more or inner.alone):
            return _PLAIN if inner.has_words else None
        return inner._replace(query={name: _without(body, "_name", "inner_hits") | {"query": inner.query}})

    def _bool(self, body: Query) -> _Part | None:
        must, should = self._occurring(body)
        with_words = [part for part in (*must, *should) if part.has_words]
        filters = [each for each in listed(body.get("filter")) if not (with_words and self._holds_words(each))]
        if not with_words and self.above.isdisjoint(map(id, filters)):
            return None
        filters += [part.query for part in must if not part.has_words and not _scores(part.query)]
        must = [part for part in must if part.has_words or _scores(part.query)]
        if should and not any(part.has_words for part in should) and _is_required(body):
            alternatives = _without(body, "must", "filter", "must_not", "boost", "_name")
            filters.append({"bool": alternatives})
            should = []
        must_not = listed(body.get("must_not"))
        in_score = [*must, *should]
        boosted = body.get("boost", 1) != 1 and bool(filters or must_not)
        alone = bool(with_words) and all(part.alone for part in with_words)
        has_more = any(part.has_more for part in in_score)
        if with_words and not boosted and not alone and not has_more:
            return _PLAIN
        required = _once([part.query for part in must])
        optional = _once([part.query for part in should], is_there=any(each is WORDS for each in required))
        said = {"must": required, "should": optional, "filter": filters, "must_not": must_not}
        rewritten = {key: clauses for key, clauses in said.items() if clauses}
        if "boost" in body:
            rewritten["boost"] = body["boost"]
        return _Part({"bool": rewritten}, has_words=True, has_more=has_more or bool(with_words), alone=alone)

    def _occurring(self, body: Query) -> tuple[list[_Part], list[_Part]]:
        """Rewrite the clauses of `must` and of `should`.

        Beside a clause with the query text, a required one without it is a filter, also if its value is a word of it.
        """
        must, should = listed(body.get("must")), listed(body.get("should"))
        if str(body.get("minimum_should_match")) in {"100%", str(max(len(should), 2))}:
            must, should = [*must, *should], []  # all of them are required
        held = self.above.intersection(map(id, [*must, *should]))
        are_filters = _is_required(body) and held.isdisjoint(map(id, should))
        required = {id(clause) for clause in [*must, *(should if are_filters else [])]}
        filters = required - held if held else frozenset[int]()
        parts = [
            [_Part(each) if id(each) in filters else self.part(each) for each in group] for group in (must, should)
        ]
        return parts[0], parts[1]

    def _alternatives(self, body: Query) -> _Part | None:
        parts = [self.part(clause) for clause in listed(body.get("queries"))]
        with_words = [part for part in parts if part.has_words]
        if not with_words:
            return None
        alone = all(part.alone for part in with_words)
        if not alone and not any(part.has_more for part in parts):
            return _PLAIN
        queries = _once([part.query for part in parts])
        return _Part({"dis_max": _without(body, "_name") | {"queries": queries}}, has_words=True, alone=alone)

    def _function_score(self, body: Query) -> _Part | None:
        inner = self.part(body.get("query"))
        functions = listed(body.get("functions"))
        others = [each for each in functions if not (isinstance(each, dict) and self._is_of_words(each))]
        kept = [each for each in others if not self._is_random(each)]
        if not inner.has_words:
            words = [each for each in functions if isinstance(each, dict) and id(each.get("filter")) in self.above]
            if not words:
                return None
            inner = inner._replace(has_words=True, has_more=False)
            kept = [_heaviest(words), *kept] if kept else []
        own = {} if self._is_random(body) else {key: body[key] for key in _FUNCTIONS if key in body}
        replaced = (
            body.get("boost_mode") == "replace" and len(others) == len(functions) and functions_ignore_score(body)
        )
        alone = inner.alone or replaced
        if not kept and not own:
            return inner._replace(alone=alone)
        rewritten = _without(body, "_name", "min_score", "functions", *_FUNCTIONS) | own | {"query": inner.query}
        rewritten |= {"functions": kept} if kept else {}
        return inner._replace(query={"function_score": rewritten}, has_more=True, alone=alone)

    def _is_random(self, function: Any) -> bool:
        random = function.get("random_score") if isinstance(function, dict) else None
        if isinstance(random, dict) and random.get("seed") is None:
            self.random.append(function)
            return True
        return False

    def _script_score(self, body: Query) -> _Part | None:
        inner = self.part(body.get("query"))
        if not inner.has_words:
            return None
        alone = inner.alone or ignores_score(body.get("script"))
        rewritten = _without(body, "_name", "min_score") | {"query": inner.query}
        return inner._replace(query={"script_score": rewritten}, has_more=True, alone=alone)

    def _is_of_words(self, function: Query) -> bool:
        """Whether a function scores the query text; one that pins by it, as best bets do, counts as a boost."""
        found = list(self._with_words(function.get("filter")))
        readings = [self.leaves.get(id(query)) for query in found]
        weight = function.get("weight")
        is_pin = isinstance(weight, int | float) and weight >= _PIN
        return bool(found) and not (is_pin and not any(reading is None or reading.touches for reading in readings))

    def _holds_words(self, query: Any) -> bool:
        """Whether one of the clauses with the query text is somewhere in a query."""
        return any(True for _ in self._with_words(query))

    def _with_words(self, query: Any) -> Iterator[Query]:
        """Yield the clauses with the query text in a query."""
        match query:
            case dict() if len(query) == 1:
                ((name, body),) = query.items()
                if not isinstance(body, dict):
                    return
                found = self.leaves.get(id(query))
                if id(query) in self.clauses or (found is not None and self._has_its_words(found)):
                    yield query
                    return
                inner = COMPOUNDS[name].children(body) if name in COMPOUNDS else ()
                for child, _ in inner:
                    yield from self._with_words(child)
            case _:
                pass


def _is_in_fields_of(found: Reading, reading: Reading) -> bool:
    """Whether a text is searched in no other fields than another one, or in their multi-fields."""
    return bool(found.fields) and (
        found.fields <= reading.fields or (bool(found.bases) and found.bases <= reading.bases)
    )


def _is_required(body: Query) -> bool:
    return role_of_should(body) is not Role.BOOST


def _without(body: Query, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in keys}


def _once(queries: Sequence[Any], *, is_there: bool = False) -> list[Any]:
    """Keep the constant of the query text once, because several clauses with the same text say no more than one."""
    kept: list[Any] = []
    for query in queries:
        if query is not WORDS or not is_there:
            kept.append(query)
        is_there |= query is WORDS
    return kept


def _scores(query: Any) -> bool:
    """Whether the score of a required clause without query text says more than that a document matches."""
    match query:
        case {"bool": dict() as body}:
            optional = bool(listed(body.get("should"))) and not _is_required(body)
            return optional or any(_scores(clause) for clause in listed(body.get("must")))
        case dict():
            return not _SCORING.isdisjoint(query)
        case _:
            return False


def _heaviest(functions: Sequence[Query]) -> Query:
    """Return a function that gives each document the greatest weight of these ones."""
    weights = [each.get("weight") for each in functions]
    return {"weight": max([weight for weight in weights if isinstance(weight, int | float)], default=1)}


def _text_of_term(body: Query) -> tuple[str, ...]:
    said = next(iter(body.values()), None) if len(body) == 1 else None
    value = said.get("value") if isinstance(said, dict) else said
    return _folded(value) if isinstance(value, str) else ()


def _text_like(name: str, body: Query) -> tuple[str, ...]:
    """Return the text that a `more_like_this` query is given; empty if it is given documents, too."""
    like = listed(body.get("like")) if name == "more_like_this" else ()
    return _folded(" ".join(like)) if all(isinstance(each, str) for each in like) else ()


def _folded(text: str) -> tuple[str, ...]:
    return fold(text) if len(text) <= KEYWORD_CHARACTERS else ()

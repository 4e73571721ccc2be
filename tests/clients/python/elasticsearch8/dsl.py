"""The official client's DSL, 8 and 9, as programs use it: documents as classes, queries as objects, pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elasticsearch import Elasticsearch
from elasticsearch.dsl import (
    Document,
    FacetedSearch,
    Float,
    Keyword,
    MultiSearch,
    Q,
    Search,
    TermsFacet,
    Text,
    connections,
)

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, main, plain, reranked, same


class Product(Document):
    title = Text()
    brand = Keyword()
    price = Float()


@contextmanager
def client_of(side: Side) -> Iterator[Elasticsearch]:
    with Elasticsearch(side.url) as client:
        yield client


def search_of(client: Elasticsearch, side: Side) -> Search[Any]:
    return Search(using=client, index=side.index)


def documents(side: Side) -> Any:
    """A class of documents is made an index, saved, found, updated and deleted."""
    with client_of(side) as client:
        Product.init(index=side.fresh, using=client)
        for number in range(5):
            product = Product(meta={"id": str(number)}, title=f"Laptop {number}", brand="acme", price=number)
            product.save(using=client, index=side.fresh, refresh=True)
        seen: list[Any] = [plain(Product.get(id="1", using=client, index=side.fresh))]
        found: Any = Product.get(id="2", using=client, index=side.fresh)
        seen.append(found.update(using=client, index=side.fresh, price=99, refresh=True))
        seen.append(found.delete(using=client, index=side.fresh, refresh=True))
        seen.append(Product.get(id="2", using=client, index=side.fresh, ignore=404))
        seen.append(
            [
                each and each.to_dict()
                for each in Product.mget([{"_id": "1"}, {"_id": "3"}], using=client, index=side.fresh)
            ]
        )
        search = Product.search(using=client, index=side.fresh).filter("range", price={"gte": 3}).sort("price")
        return [*seen, [hit.to_dict() for hit in search], search.count(), search.delete().to_dict()["deleted"]]


def searches(side: Side) -> Any:
    """Queries, facets, highlights, suggestions and deep pages without the words of a user, or in an order."""
    with client_of(side) as client:
        search = search_of(client, side).query(Q("match", title="laptop") | Q("match", title="phone"))
        search = search.filter("term", in_stock=True).exclude("term", brand="acme").sort("-price", "title.exact")
        search = search.highlight("title").source(["title", "brand"])
        search.aggs.bucket("brands", "terms", field="brand").metric("price", "avg", field="price")
        found = search[2:9].execute()
        suggested = search_of(client, side).suggest("s", "laptob", term={"field": "title"}).execute()
        return [found.to_dict(), suggested.to_dict(), search.count()]


def pages(side: Side) -> Any:
    """Everything is read by iterate and by scan, nothing lost and nothing twice."""
    with client_of(side) as client:
        search = search_of(client, side).query("match", description="sound")
        iterated = [hit.to_dict() for hit in search.sort("price")[:3].iterate()]
        by_score = [hit.to_dict() for hit in search.sort("_score", "title.exact")[:3].iterate()]
        scanned = sorted((hit.meta.id, hit.to_dict()) for hit in search.scan())
        demand(len(iterated) == len(by_score) == len(scanned) > 3, f"{len(iterated)} {len(by_score)} {len(scanned)}")
        return [iterated, by_score, scanned]


def unsorted_pages(side: Side) -> Any:
    """Where nothing is sorted the DSL has no cursor, and says so."""
    with client_of(side) as client:
        search = search_of(client, side).query("match", title="laptop")[:2]
        try:
            return len(list(search.iterate()))
        except ValueError as error:
            return str(error)


def several(side: Side) -> Any:
    with client_of(side) as client:
        every = search_of(client, side).sort("price")
        multi = MultiSearch(using=client, index=side.index).add(every[:3]).add(every.filter("term", brand="acme")[:3])
        return [each.to_dict() for each in multi.execute()]


def facets(side: Side) -> Any:
    """A faceted search brings its facets."""

    class Products(FacetedSearch):
        index = side.index
        fields = ("title", "description")
        facets = {"brand": TermsFacet(field="brand"), "category": TermsFacet(field="category")}  # noqa: RUF012

    with client_of(side) as client:
        connections.add_connection("default", client)
        found = Products("laptop", {"brand": "acme"}).execute()
        return found.facets.to_dict()


def facets_agree(bench: Bench) -> None:
    """No facet of a reranked search counts fewer than the engine alone."""
    straight, through = (
        {(name, value): count for name, values in facets(side).items() for value, count, _ in values}
        for side in bench.sides(routed=True)
    )
    demand(all(through[value] >= count for value, count in straight.items()), f"{through} after {straight}")


def searched(side: Side) -> Any:
    with client_of(side) as client:
        found = search_of(client, side).query("match", title="laptop")[:40].execute()
        equal(found.to_dict()["hits"]["total"]["value"], len(found))
        return [[hit.meta.id, hit.to_dict()] for hit in found]


def searched_in_pages(side: Side) -> Any:
    with client_of(side) as client:
        search = search_of(client, side).query("match", title="laptop")
        pages = [list(search[start : start + 4]) for start in range(0, 40, 4)]
        return [[hit.meta.id, hit.to_dict()] for page in pages for hit in page]


def searched_with_others(side: Side) -> Any:
    with client_of(side) as client:
        one = search_of(client, side).query("match", title="laptop")[:40]
        found = MultiSearch(using=client).add(one).add(search_of(client, side).sort("price")[:1]).execute()
        return [[hit.meta.id, hit.to_dict()] for hit in found[0]]


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(see) for see in (documents, searches, pages, unsorted_pages, several, facets)},
    **{
        f"{see.__name__}_in_route": same(see, routed=True)
        for see in (documents, searches, pages, unsorted_pages, several)
    },
    facets_agree.__name__: facets_agree,
    **{see.__name__: reranked(see) for see in (searched, searched_in_pages, searched_with_others)},
}

if __name__ == "__main__":
    main(SCENARIOS)

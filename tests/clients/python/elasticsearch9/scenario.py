"""The official client 9 before Elasticsearch 8, which does not speak its media type: refused as straight."""

from typing import Any

from elasticsearch import ApiError, Elasticsearch

from tests.clients.python.sides import Scenario, Side, demand, headers, main, same


def refused(side: Side) -> Any:
    """Every request is refused by the engine, in its words."""
    seen: list[list[Any]] = []
    with Elasticsearch(side.url) as client:
        calls: tuple[Any, ...] = (
            client.info,
            lambda: client.search(index=side.index, query={"match": {"title": "laptop"}}),
            lambda: client.msearch(index=side.index, searches=[{}, {"query": {"match": {"title": "laptop"}}}]),
            lambda: client.bulk(operations=[{"index": {"_index": side.fresh}}, {"n": 1}]),
            lambda: client.index(index=side.fresh, document={"n": 1}),
        )
        for call in calls:
            try:
                call()
            except ApiError as error:
                seen.append([type(error).__name__, error.status_code, error.body, headers(error.meta.headers)])
    demand([["BadRequestError", 400]] * 5 == [each[:2] for each in seen], f"{seen}")
    return seen


SCENARIOS: dict[str, Scenario] = {"refused": same(refused), "refused_in_route": same(refused, routed=True)}

if __name__ == "__main__":
    main(SCENARIOS)

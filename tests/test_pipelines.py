"""Which search pipelines leave hits and their order as a search makes them."""

from typing import Any

import pytest

from proxy.catalog.pipelines import is_harmless

NORMALIZATION = {"normalization-processor": {"normalization": {"technique": "min_max"}}}
RANKS = {"score-ranker-processor": {"combination": {"technique": "rrf"}}}


@pytest.mark.parametrize(
    "pipeline",
    [
        {},
        {"description": "nothing", "version": 3},
        {"phase_results_processors": [NORMALIZATION]},
        {"description": "hybrid", "phase_results_processors": [NORMALIZATION, RANKS]},
        {"request_processors": [], "response_processors": []},
    ],
)
def test_pipelines_that_only_merge_scores_are_harmless(pipeline: Any) -> None:
    assert is_harmless(pipeline)


@pytest.mark.parametrize(
    "pipeline",
    [
        {"request_processors": [{"filter_query": {"query": {"term": {"visible": True}}}}]},
        {"request_processors": [{"oversample": {"sample_factor": 2}}]},
        {"request_processors": [{"script": {"source": "ctx._source['size'] = 2"}}]},
        {"response_processors": [{"rerank": {"ml_opensearch": {"model_id": "m"}}}]},
        {"response_processors": [{"rename_field": {"field": "a", "target_field": "b"}}]},
        {"response_processors": [{"truncate_hits": {"target_size": 5}}]},
        {"phase_results_processors": [NORMALIZATION, {"personalize_search_ranking": {}}]},
        {"phase_results_processors": [{**NORMALIZATION, "other": {}}]},
        {"phase_results_processors": ["normalization-processor"]},
        {"later_processors": []},
    ],
)
def test_pipelines_that_may_change_hits_are_not_harmless(pipeline: Any) -> None:
    assert not is_harmless(pipeline)

"""The engine's search endpoints, each from the client's request to the response.

front               what all endpoints share: the caller, the request body, the response
media               whether bodies are JSON, and gzip
search              `_search`, and `_search/template` after the engine has rendered the template
multi_search        `_msearch` and `_msearch/template`: each item is a search of its own
multi_search_lines  the lines of `_msearch`, split into items and joined again
async_search        `_async_search`: passed on until the search is complete, then reranked
answering           one search of any endpoint: its route, plan and result
shadowing           shadow mode: reranks a search after its response, to log what would have changed
nodes               `_nodes`, where sniffing clients find addresses, which a setting can replace
passthrough         everything else, byte for byte
"""

"""The engine's ways to search, each from a client's request to its answer.

front           what all of them need: who asks, what the body holds, how an answer is sent
single          `_search`, and `_search/template` once the engine has rendered it
multi           `_msearch` and `_msearch/template`: each item a search of its own
asynchronous    `_async_search`: handed on until it is complete, then as a search
"""

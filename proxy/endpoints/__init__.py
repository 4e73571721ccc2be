"""The engine's ways to search, each from a client's request to its answer.

front           what all of them need: who asks, what the body holds, how an answer is sent
media           whether a body is JSON that can be read
single          `_search`, and `_search/template` once the engine has rendered it
multi           `_msearch` and `_msearch/template`: each item a search of its own
multi_search    the lines of `_msearch`, apart and together again
asynchronous    `_async_search`: handed on until it is complete, then as a search
nodes           `_nodes`, where clients that sniff learn the addresses, rewritten if configured
"""

"""What the proxy costs: beside a real engine alone, beside other proxies, and beside a search made by hand.

passthrough CPU of a request that passes through, beside nginx and aiohttp (baselines) in front of the same origin
reranked    a reranked search beside the same one by_hand, made by searchers in front of stand_ins or a real engine
stalled     latency and throughput while the models do not answer
processes   what a process and its children have used
measuring   pairs of requests, straight and through the proxy by turns → a Figure
cases       what is asked
drawing     figures → a picture

`make bench` runs it, writes `results.json` and the pictures here, and README's tables are made of them.
"""

"""What the proxy costs: beside the same straight at a real engine, and passing through beside other proxies.

passthrough CPU of a request that passes through, beside nginx and aiohttp (baselines) in front of the same origin
processes   what a process and its children have used
measuring   pairs of requests, straight and through the proxy by turns → a Figure
cases       what is asked
drawing     figures → a picture

`make bench` runs it, writes `results.json` and the pictures here, and README's tables are made of them.
"""

"""What the proxy costs, as ratios against the same thing straight at a real engine, in the same run.

measuring   pairs of requests, straight and through the proxy by turns → a Figure
cases       what is asked
drawing     figures → a picture

`make bench` runs it, writes `results.json` and `results.svg` here, and README's table is made of them.
"""

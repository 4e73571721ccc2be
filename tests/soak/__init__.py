"""A long run of the proxy as a process: mixed load, faults of clients and models, reloads; then what must hold.

load        the clients: what each kind sends, and what it expects
faulty      models that hang, break off, refuse and fail, and a Redis that hangs and is away, in phases
watch       memory and descriptors of the proxy, its counters and its log; what must hold of them

`python -m demo.engine exec -- python -m tests.soak --minutes 30` runs it on a real Elasticsearch.
"""

"""The command `check`, which changes nothing.

run               `check`: the file, then the nodes of the engine, the indices of each route, and the models
    routes        compare the routes with each other and with the mappings of their indices
    services      send one real request to each node and each model
dry_run           `check --search`: what `serve` would do with one search body
findings          the results, and the exit code
"""

"""The commands that look and change nothing: `check`, and `check --search`.

run               `check`: the file, then the engine's nodes, each route's indices, and the models
    routes        routes compared with each other and with their indices' mappings
    services      the nodes and the models, each asked one real question
dry_run           `check --search`: what `serve` would do with one search body
findings          what is found, and the exit code
"""

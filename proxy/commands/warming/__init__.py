"""The command `warm`: sends frequent searches through a running proxy, so that its caches have vectors and scores.

command     from the options to the exit code; stops at a cap
dry_run     `--dry-run`: run the searches with models that only count
searches    read the searches from query texts, search bodies or the proxy's log
"""

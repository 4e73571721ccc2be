"""Index metadata and engine facts: names, mappings, dialects, pipelines, vectors."""

"""What is known of engines and indices: names, mappings, dialects, pipelines, vectors."""

"""What is kept for later searches, as bytes by key: rankings, scores and query vectors."""

"""Making scripts and lists of tests shorter that fail in the same way."""

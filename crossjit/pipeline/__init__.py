"""From a request to a cell with its verdict: prepare, build, validate."""

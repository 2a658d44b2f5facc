"""Measurements of crossjit: each script says in its first lines what it measures and how it is called."""

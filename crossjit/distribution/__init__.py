"""Stencils that are shipped apart from a build: an archive of them, and whether they are those of their source."""

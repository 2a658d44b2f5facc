"""Capsules: one archive with a failure, and all that it takes to see it again on another machine."""

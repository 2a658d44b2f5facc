"""Installed Pythons: fetching Debian's packages, reading folders and archives, and what their builds are."""

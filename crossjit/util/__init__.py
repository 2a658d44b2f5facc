"""Helpers without knowledge of CPython: files, locks, tar streams, budgets, text."""

"""Helpers that know nothing of CPython: files, locks, tar streams, budgets, text."""

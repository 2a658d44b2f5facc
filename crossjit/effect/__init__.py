"""What a change to CPython does: its build compared with the one that it is based on, on each architecture."""

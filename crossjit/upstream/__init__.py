"""CPython's own CI, read from its workflows: which jobs there are, and what each configures and tests."""

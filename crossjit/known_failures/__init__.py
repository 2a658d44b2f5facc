"""Known failures: entries, their audit, and the tests that there are."""

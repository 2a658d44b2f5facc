"""Running suites on a build, and the verdict."""

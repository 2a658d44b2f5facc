"""What people write: recipes, suites, conditions, and the documents that they are in."""

"""Configuration: recipes, suites, conditions, and parsing their documents."""

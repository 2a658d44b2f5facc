"""What people read: progress on stderr (`terminal`), results as tables and JSON (`tables`)."""

"""What people read: progress (`terminal`), and a run as text and JSON (`tables`), HTML, JUnit XML and Markdown."""

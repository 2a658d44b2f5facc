"""Output for people and programs: progress (`terminal`), and a run as text, JSON, HTML, JUnit XML and Markdown."""

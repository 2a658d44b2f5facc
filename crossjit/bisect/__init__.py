"""Which commit of a history changed how a test ends."""

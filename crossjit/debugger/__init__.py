"""A crash under gdb, in the container it happened in."""

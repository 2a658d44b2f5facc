"""Building a source in a toolchain container."""

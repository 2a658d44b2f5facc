"""The entry point of `./inv`, `crossjit` and `python -m crossjit`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. If it cannot be imported, exit with 3: Python's own 1 would mean that CPython fails."""
    try:
        from crossjit.tasks import program
    except Exception:
        import traceback

        traceback.print_exc()
        from crossjit import INSTALLED

        remedy = "install crossjit again" if INSTALLED else "remove .venv, and run ./inv again"
        sys.stderr.write(f"error: crossjit cannot be loaded\nhint: {remedy}\n")
        raise SystemExit(3) from None
    program.run()


if __name__ == "__main__":
    main()

"""Command lines: `python -m branchnets.tools.NAME --help`."""

"""Timings: `python -m benchmarks` for all of speed, `python -m benchmarks.NAME --help` for one."""

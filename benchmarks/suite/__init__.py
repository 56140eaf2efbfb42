"""All benchmarks of speed as one suite: `python -m benchmarks`."""

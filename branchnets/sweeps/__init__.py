"""Grids of runs: which cells there are (grid), running them (run), what they found (draw)."""

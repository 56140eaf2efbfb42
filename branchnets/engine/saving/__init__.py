"""Checkpoints: saved, listed, checked and restored, on a disk or an object store."""

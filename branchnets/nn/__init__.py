"""Layers that know no family: convolution and batch normalisation."""

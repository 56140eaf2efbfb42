"""The data sets by name, one file each; `branchnets.data.registry` lists them."""

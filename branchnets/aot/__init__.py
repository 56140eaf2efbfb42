"""What the steps of a config cost on devices that are not here, by the compiler for them."""

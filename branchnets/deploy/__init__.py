"""Networks as folders that other programs use: weights, a description, a compiled-anywhere program.

classifier.json      what it decides and how: outputs, thresholds, preprocessing, scores, sizes,
                     the module, the run it comes from, checksums of the other files
weights.safetensors  float32 arrays by name, ``params/stage2/block0/reduce/kernel``
model.jaxexport      a ``jax.export`` program for CPU, CUDA and TPU, weights and normalisation
                     inside: uint8 images [b, H, W, C] -> float32 scores [b, outputs]

Nothing in it is pickled, and nothing that is read from it is executed but the exported program.
"""

"""Training and evaluation of any family: configs, the step, checkpoints, logs, run directories."""

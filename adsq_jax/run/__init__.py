"""The folder of a run and its files: config, checkpoints, metrics, codes, result."""

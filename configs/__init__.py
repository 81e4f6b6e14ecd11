"""Configs: one file a data set, with how to run it and what to expect. Installed packages have them as adsq_jax.configs."""

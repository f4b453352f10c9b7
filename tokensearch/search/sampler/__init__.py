"""Samplers: the local one with its surrogate, and the Optuna study that they all use."""

"""Measurements: a model and a state in, a pandas frame out."""

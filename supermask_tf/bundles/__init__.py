"""Experiments as XLA programs that JAX trains where TensorFlow is not, and their results as
records.
"""

"""Sparse dictionaries of activations: one file per kind, each a plain dictionary of named tensors."""

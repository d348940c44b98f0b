"""Curvature of a loss: products, eigenpairs, trace; each module is imported by its own name."""

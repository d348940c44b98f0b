"""Curvature of a loss: products, eigenpairs, trace, density, landscape; each module is imported by its own name."""

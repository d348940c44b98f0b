"""Quantities that follow from the tables of an experiment, one module each, found by its literal ``DERIVED_FROM``."""

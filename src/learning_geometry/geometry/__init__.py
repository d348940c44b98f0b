"""Estimators: pure functions on tensors and arrays; no files, no models."""

"""The rules by which claims are judged, one module each, found by name: see ``learning_geometry.claims.rule``."""

"""The geometry of transformer learning: tasks, models, training, measurements, claims and figures."""

__version__ = "0.1.0"

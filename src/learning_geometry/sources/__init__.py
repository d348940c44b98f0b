"""Checkpoints of other programs: their files, their names, and what they become."""

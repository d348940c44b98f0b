"""Checkpoints that other tools wrote: their formats, their names of files, their steps. Nothing is ever written."""

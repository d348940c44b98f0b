"""One file per measurement: a run in, one tidy table out."""

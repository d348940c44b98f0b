"""One file per figure; figures read tables, never models."""

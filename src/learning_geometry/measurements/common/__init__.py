"""What several measurements share, and parts of single ones: what they are given, estimates, nulls, bases."""

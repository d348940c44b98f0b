"""What a config can measure on trained runs, one module each."""

"""What a config can measure of language models, one module each."""

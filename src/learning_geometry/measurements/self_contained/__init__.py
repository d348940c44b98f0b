"""What a config can ask for that reads neither run nor language model, one module each."""

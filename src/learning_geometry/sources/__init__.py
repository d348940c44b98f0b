"""Other tools' checkpoints: how they are read, and how their tensors become the parameters of a model here."""

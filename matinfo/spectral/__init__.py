"""The spectral engine: the only room that calls ``torch.linalg`` or defines a backward."""

"""The statements of the theory section, evaluated on the features of real training."""

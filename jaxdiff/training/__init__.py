"""Score networks, their losses and the training loop."""

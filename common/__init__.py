"""What the scorer and the trainer share; imports neither of them."""

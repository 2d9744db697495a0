"""Selection of training samples: pure torch functions."""

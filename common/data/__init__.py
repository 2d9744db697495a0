"""Data sources, augmentation, and the reading of samples at positions of an order."""

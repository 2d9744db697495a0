"""A model's forward pass in other precisions than its own, following its parameters."""

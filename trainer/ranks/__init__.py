"""Several trainer processes that make one optimiser step together: torch.distributed, one rank each."""

"""The scorer process: forward passes over leased candidates with resident weights."""

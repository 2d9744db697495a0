"""`marginstream plan`: measures this machine, and says what to run on it."""

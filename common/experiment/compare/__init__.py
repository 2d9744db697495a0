"""`marginstream compare`: the same training with samples selected in several ways, several times, and what came out."""

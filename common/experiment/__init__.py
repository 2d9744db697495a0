"""Whole runs driven from outside: launch, supervise, show."""

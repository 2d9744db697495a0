"""What operators ask a process over HTTP, on loopback and where `--metrics-port` says so.

Is it alive, is it ready, what has it counted: everything is read when somebody asks, nothing is computed before.
"""

"""Who may speak over tcp: keys in private files, and the list of keys that the trainer lets in."""

import zmq

from common.config.access import AccessOptions
from common.errors import EndpointError
from common.security.credentials import Credentials, Insecure
from common.security.gate import Gate

Security = Gate | Credentials | Insecure


def arm(security: Security | None, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Have a new tcp socket guarded. Raises EndpointError if nothing guards it."""
    if security is None:
        raise EndpointError(
            f"{endpoint} needs keys: make them with `marginstream keygen DIR` and give --keys DIR; "
            "on loopback, --insecure does without"
        )
    security.arm(socket, endpoint)


def trainer_security(options: AccessOptions, endpoint: str | None) -> Gate | Insecure | None:
    """What guards a trainer's tcp endpoint; None for ipc, which needs nothing. Raises ConfigError for bad keys."""
    if endpoint is None or not endpoint.startswith("tcp://"):
        return None
    return Gate(options.keys) if options.keys is not None else Insecure() if options.insecure else None


def scorer_security(options: AccessOptions, endpoint: str) -> Credentials | Insecure | None:
    """What a scorer shows to a trainer on tcp; None for ipc. Raises ConfigError for bad keys."""
    if not endpoint.startswith("tcp://"):
        return None
    return Credentials(options.keys) if options.keys is not None else Insecure() if options.insecure else None

"""Options of who may connect: keys for tcp, or loopback without any."""

from pathlib import Path

from pydantic import Field, model_validator

from common.config.base import ListenEndpoint, Options
from common.config.endpoint import is_loopback, is_on_all


class AccessOptions(Options):
    """What trainer and scorer are told of keys."""

    keys: Path | None = Field(
        default=None, description="folder of keys for tcp, made by `marginstream keygen`; ipc needs none"
    )
    insecure: bool = Field(default=False, description="tcp without keys; on loopback only")

    @property
    def key_flags(self) -> str:
        """What a scorer's command line ends in to match; empty if nothing is needed."""
        if self.insecure:
            return " --insecure"
        return "" if self.keys is None else f" --keys {self.keys}"


class ListenOptions(AccessOptions):
    """Where a trainer listens."""

    listen: ListenEndpoint | None = Field(
        default=None,
        description="endpoint for scorers: ipc://PATH or tcp://ADDRESS:PORT, which needs --keys; by default a private "
        "ipc one",
    )
    listen_on_all: bool = Field(
        default=False, description="let --listen name all interfaces, as tcp://0.0.0.0:PORT; needs --keys"
    )

    @model_validator(mode="after")
    def _listens_to_whom_it_may(self) -> "ListenOptions":
        check_access("--listen", self.listen, self)
        if self.listen is not None and is_on_all(self.listen) and not self.listen_on_all:
            raise ValueError(
                f"--listen {self.listen} is every interface of this machine; name the address of one, "
                "or add --listen-on-all"
            )
        return self


def check_access(flag: str, endpoint: str | None, access: AccessOptions) -> None:
    """ValueError, with the remedy, unless tcp has keys, or is loopback and may do without."""
    if access.insecure and access.keys is not None:
        raise ValueError("--insecure contradicts --keys: with keys, tcp is secure; leave one out")
    if access.insecure and (endpoint is None or not is_loopback(endpoint)):
        shown = f"{flag} {endpoint} is not on it" if endpoint else f"no {flag} names any"
        remedy = "use --keys DIR" if endpoint and endpoint.startswith("tcp://") else "leave it out: ipc needs no keys"
        raise ValueError(f"--insecure is for loopback tcp only, and {shown}; {remedy}")
    if endpoint is None or not endpoint.startswith("tcp://") or access.keys is not None or access.insecure:
        return
    without = ", or add --insecure, which loopback allows" if is_loopback(endpoint) else ""
    raise ValueError(
        f"{flag} {endpoint} needs keys: make them with `marginstream keygen DIR` and give --keys DIR to trainer and "
        f"scorers{without}"
    )

"""Options of `marginstream keygen`."""

import re
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from common.config.base import Options

RESERVED = frozenset({"allowed", "scorer"})


class KeygenOptions(Options):
    """Keys for tcp: `keygen DIR` makes the trainer's, one for scorers, and the list of keys that may connect."""

    positional: ClassVar[frozenset[str]] = frozenset({"dir"})

    dir: tuple[Path, ...] = Field(default=(), description="folder for the keys; existing ones are never overwritten")
    names: tuple[str, ...] = Field(
        default=(),
        description="scorers elsewhere: a key for each, in DIR/NAME to take to its machine; also for a folder in use",
    )

    @model_validator(mode="after")
    def _agree(self) -> "KeygenOptions":
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name in RESERVED:
                raise ValueError(
                    f"--names {name}: a name has letters, digits, - and _, at most 64, and is not "
                    f"{' or '.join(sorted(RESERVED))}"
                )
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"--names {' '.join(self.names)}: a name stands there twice; leave one out")
        return self

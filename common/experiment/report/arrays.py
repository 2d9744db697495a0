"""Arrays that a run left in its folder."""

import zipfile
from pathlib import Path

import numpy as np

from common.errors import ConfigError


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file by name; None if there is no such file. Nothing is unpickled.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read: {error}; the run folder is damaged") from error

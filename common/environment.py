"""What a run was run with: versions, source revision, machine. Never the environment variables."""

import platform
import socket
import subprocess
import sys
import time
from importlib import metadata
from os import cpu_count
from pathlib import Path
from typing import Any

_PACKAGES = ("marginstream", "torch", "torchvision", "numpy", "pyzmq", "msgspec", "pydantic", "tyro", "pillow")
_GIT_TIMEOUT_S = 5


def describe_environment() -> dict[str, Any]:
    """Versions, git revisions, host and command line, ready for JSON."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "source": git_revision(Path(__file__).resolve().parent.parent),
        "working_folder": git_revision(Path.cwd()),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu_count": cpu_count(),
        "gpus": _gpus(),
    }


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Commit of the work tree that holds `folder`, and whether tracked files differ from it; None without one."""
    if "site-packages" in folder.parts:  # installed: a repository around the environment is another project's
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    # Only where torch is loaded already: importing it takes seconds.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]

"""Models by name or import path, and their last linear layer."""

from common.models.check import check_model, evaluating, gives_margins
from common.models.head import find_head, unwrap
from common.models.registry import build_model
from common.models.state import load_state

__all__ = ["build_model", "check_model", "evaluating", "find_head", "gives_margins", "load_state", "unwrap"]

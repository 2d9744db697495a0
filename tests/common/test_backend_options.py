"""Which backend a run's scorers get, and which are refused before anything starts."""

import subprocess
import sys

import pytest

from common.config import RunOptions, ScorerOptions, load_options
from common.errors import ConfigError
from common.selection.registry import METHODS

ENDPOINT = "ipc:///tmp/trainer"
PREDICTOR_FOR_LOSS = (
    "--method loss wants scores of a model, and a predictor gives predicted losses only; use --backend torch or proxy"
)
TORCH_FOR_PREDICTED = (
    "--method biased-importance wants predicted losses, which --backend torch cannot give; use --backend predictor"
)
PROXY = ("--backend", "proxy", "--proxy-model", "small")


def scorers_of(*argv: str) -> str:
    return load_options(RunOptions, argv).for_scorer(connect=ENDPOINT).backend


@pytest.mark.parametrize("method", [name for name, entry in METHODS.items() if entry.needs_scorer])
def test_auto_is_what_the_method_asks_for(method: str) -> None:
    argv = ("--method", method, *(("--irreducible", "x.pt") if method == "rho-loss" else ()))
    assert scorers_of(*argv) == ("predictor" if method == "biased-importance" else "torch")


def test_auto_is_torch_for_a_scorer_by_itself() -> None:
    options = load_options(ScorerOptions, ["--connect", ENDPOINT])
    assert (options.backend, options.resolved_backend) == ("auto", "torch")


def test_an_explicit_backend_that_serves_the_method_is_kept() -> None:
    assert scorers_of("--method", "loss", "--backend", "torch") == "torch"
    assert scorers_of("--method", "biased-importance", "--backend", "predictor") == "predictor"
    assert scorers_of("--method", "loss", *PROXY) == "proxy"
    assert scorers_of("--method", "biased-importance", "--backend", "synthetic") == "synthetic"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--method biased-importance --backend torch", TORCH_FOR_PREDICTED),
        ("--method loss --backend predictor", PREDICTOR_FOR_LOSS),
        (
            "--method divbs --backend proxy --proxy-model small",
            "--method divbs compares gradients of one model's last layer, and a proxy is another; use --backend torch",
        ),
        (
            "--method biased-importance --precision bf16",
            "--backend predictor computes in float32, got --precision bf16",
        ),
        ("--proxy-model small", "--proxy-model needs --backend proxy, got --backend auto"),
    ],
)
def test_a_backend_that_cannot_serve_the_method_is_refused_with_the_remedy(argv: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_options(RunOptions, argv.split())
    assert str(caught.value) == message


def test_where_no_scorer_is_started_its_backend_does_not_matter() -> None:
    for argv in ("--mode fresh --method biased-importance --backend torch", "--mode uniform --backend predictor"):
        load_options(RunOptions, argv.split())


def test_the_refusal_ends_the_command_with_code_2_and_without_torch() -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join({'torch', 'zmq'} & set(sys.modules))))\n"
        "from common.cli import main\nsys.exit(main(['run', '--method', 'loss', '--backend', 'predictor']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"error: {PREDICTOR_FOR_LOSS}\n")

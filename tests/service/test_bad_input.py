"""Bad input is refused before anything is trained, with its option or file, the value seen and the remedy.

Commands run in this process where that is the same to them: what they do is in their exit code and on stderr.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from common import cli
from scorer.__main__ import main as scorer
from tests.service.processes import Processes
from trainer.__main__ import main as trainer

THREADS = ("--threads", str(torch.get_num_threads()))  # of this process, as they are
DIGITS = ("--data", "digits", *THREADS)

Said = Callable[[], str]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands write to the working folder and set signal handlers."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The error that a command ended with."""

    def error() -> str:
        lines = capsys.readouterr().err.splitlines()
        errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
        assert len(errors) == 1, lines
        return "\n".join(lines[errors[0] :])

    return error


def run(argv: list[str]) -> int:
    return cli.main(["run", *argv])


@pytest.mark.parametrize("command", [run, trainer])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--push-evry", "4"], ["--push-evry", "did you mean --push-every"]),
        (["--schedule.gama", "0.5"], ["--schedule.gama", "did you mean --schedule.gamma"]),
        (["--candidates", "16", "--batch-size", "32"], ["--candidates", "at least --batch-size (32)", "16", "auto"]),
        (["--push-every", "8", "--max-staleness", "6"], ["--max-staleness", "at least --push-every - 1 (7)", "6"]),
        (["--mode", "fresh", "--method", "uniform"], ["--mode fresh", "--method uniform", "leave one out"]),
        (["--steps", "0"], ["--steps", "0", "greater than 0"]),
        (["--listen", "tcp://192.0.2.1:7000"], ["--listen tcp://192.0.2.1:7000", "needs keys", "marginstream keygen"]),
        (["--config", "absent.toml"], ["--config", "absent.toml"]),
    ],
)
def test_options_are_judged_before_torch_is_there(
    command: Callable[[list[str]], int], flags: list[str], named: list[str], said: Said
) -> None:
    assert command([*flags, "--out", "out"]) == 2
    error = said()
    assert [part for part in named if part not in error] == [], error
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--data", "digts"], ["--data digts", "did you mean digits"]),
        (["--data", "imagefolder"], ["--data imagefolder", "--data-root DIR"]),
        (["--data", "imagefolder", "--data-root", "absent"], ["--data-root", "absent"]),
        (["--data", "cifar10", "--data-root", "absent"], ["absent"]),
        (["--model", "resnet9"], ["--model resnet9", "6n+2"]),
        (["--head", "haed"], ["--head haed", "head"]),
        (["--data", "no_such_module:open"], ["--data no_such_module:open", "no module no_such_module"]),
        (["--init", "absent.pt"], ["--init absent.pt", "no such file"]),
        (["--device", "cuda:7"], ["--device cuda:7"]),
    ],
)
def test_data_and_model_are_judged_before_the_run_folder_is_made(
    flags: list[str], named: list[str], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    assert trainer([*flags, *THREADS, "--out", "out"]) == 2
    error = said()
    assert [part for part in named if part not in error] == [], error
    assert not Path("out").exists()


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no network in tests")


def test_an_unreadable_image_is_named(tmp_path: Path, said: Said) -> None:
    for kind in ("cat", "dog"):
        folder = tmp_path / "images" / "train" / kind
        folder.mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
    broken = tmp_path / "images" / "train" / "dog" / "5.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert trainer(["--data", "imagefolder", "--data-root", "images", *THREADS, "--out", "out"]) == 2
    assert "dog/5.png" in said()
    assert not Path("out").exists()


def test_initial_parameters_of_another_model_are_named(said: Said) -> None:
    torch.save(torch.nn.Linear(3, 2).state_dict(), "other.pt")
    assert trainer([*DIGITS, "--init", "other.pt", "--out", "out"]) == 2
    error = said()
    assert "--init other.pt does not fit the model; check --model and --data" in error
    assert not Path("out").exists()


def test_a_file_that_is_no_state_dict_is_named_and_never_executed(said: Said) -> None:
    Path("notes.pt").write_text("cos\nsystem\n(S'touch executed'\ntR.")
    assert trainer([*DIGITS, "--init", "notes.pt", "--out", "out"]) == 2
    assert "--init notes.pt" in said()
    assert not Path("executed").exists()


@pytest.mark.parametrize("command", [run, trainer])
def test_a_used_run_folder_is_refused_with_the_ways_out(command: Callable[[list[str]], int], said: Said) -> None:
    Path("out").mkdir()
    Path("out/summary.json").write_text("{}")
    assert command([*DIGITS, "--out", "out"]) == 2
    error = said()
    assert [part for part in ("--out", "out holds files", "rm -r out", "another") if part not in error] == [], error
    assert Path("out/summary.json").read_text() == "{}"


# -- between scorer and trainer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_trainer", "of_scorer", "field", "remedy"),
    [
        (["--model", "resnet8"], [], "model", "give both the same --model and --head"),
        (["--data", "synthetic"], [], "data", "give both the same --data and --data-root"),
        (
            ["--data", "synthetic"],
            ["--data", "synthetic", "--synthetic.seed", "1"],
            "data",
            "give both the same --data and --data-root",
        ),
        (["--augment.flip"], [], "augmentation", "give both the same --augment options"),
    ],
)
def test_a_scorer_of_another_kind_is_refused_by_the_field_that_differs(
    of_trainer: list[str], of_scorer: list[str], field: str, remedy: str, listening: Callable[..., str], said: Said
) -> None:
    endpoint = listening(*of_trainer)
    code = scorer(["--connect", endpoint, *THREADS, *of_scorer, "--connect-s", "20"])
    error = said()
    assert (code, endpoint in error) == (3, True)
    assert f"refused this scorer: {field}: " in error
    assert remedy in error


OWN_DATA = """
import torch
from common.data.source import Source, TensorSplit

DECODER = "jpeg 1.0"

def open_own():
    split = TensorSplit(torch.arange(640).reshape(64, 10).float(), torch.arange(64) % 4)
    return Source("own", split, split, 4, decoder=DECODER)
"""


def test_a_scorer_with_another_decoder_is_refused(
    tmp_path: Path, listening: Callable[..., str], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_decoded.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(tmp_path)
    endpoint = listening("--data", "own_decoded:open_own")
    monkeypatch.setattr("own_decoded.DECODER", "jpeg 2.0")
    assert scorer(["--connect", endpoint, *THREADS, "--data", "own_decoded:open_own", "--connect-s", "20"]) == 3
    assert "refused this scorer: decoder: the same files decode to other pixels" in said()


def test_a_scorer_of_another_protocol_is_refused(
    listening: Callable[..., str], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scorer.loop.PROTOCOL_VERSION", 999)
    assert scorer(["--connect", listening("--data", "synthetic"), "--backend", "synthetic", "--connect-s", "20"]) == 3
    error = said()
    assert "refused this scorer: protocol: " in error
    assert "999" in error


def test_a_refusal_is_the_exit_code_of_the_process(listening: Callable[..., str], processes: Processes) -> None:
    endpoint = listening("--data", "synthetic")
    refused = processes.scorer("refused", endpoint, "--data", "synthetic", "--synthetic.num-classes", "3")
    assert refused.code() == 3
    assert "refused this scorer: data: " in refused.output


@pytest.mark.parametrize("kind", ["ipc", "tcp"])
def test_an_endpoint_in_use_is_named(kind: str, listening: Callable[..., str], said: Said) -> None:
    flags = ["--data", "synthetic", *THREADS]
    endpoint = listening(*flags, *(["--insecure", "--listen", "tcp://127.0.0.1:*"] if kind == "tcp" else []))
    insecure = ["--insecure"] if kind == "tcp" else []
    assert trainer([*flags, *insecure, "--listen", endpoint, "--out", "out", "--log.no-tensorboard"]) == 2
    error = said()
    assert endpoint in error
    assert "choose another --listen" in error
    assert not Path("out/summary.json").exists()


@pytest.mark.parametrize("endpoint", ["ipc:///tmp/marginstream-nobody", "tcp://127.0.0.1:9"])
def test_a_scorer_finds_no_trainer_within_its_deadline(endpoint: str, said: Said) -> None:
    insecure = ["--insecure"] if endpoint.startswith("tcp") else []
    assert scorer(["--connect", endpoint, *insecure, "--backend", "synthetic", "--connect-s", "0.3"]) == 4
    error = said()
    assert f"no trainer heard at {endpoint}" in error
    assert "--listen" in error

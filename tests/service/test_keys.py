"""Trainer and scorers as processes that meet over tcp with keys, and the words for those who are kept out."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli import main as command
from common.config import RunOptions, ScorerOptions, TrainerOptions, load_options
from common.errors import ConfigError
from common.security.keygen import make_folder
from common.security.keys import read_pair
from scorer.__main__ import main as scorer
from tests.service.processes import Processes, assert_balanced

DATA = ("--data", "synthetic", "--synthetic.num-samples", "512")
WAITING = (*DATA, "--candidates", "128", "--chunk-size", "64", "--fallback", "wait")
TCP = ("--listen", "tcp://127.0.0.1:*")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_folder(tmp_path / "keys")
    return tmp_path / "keys"


def test_a_run_over_tcp_with_keys_trains_on_scored_candidates_and_leaves_no_key_behind(
    processes: Processes, keys: Path, tmp_path: Path
) -> None:
    trainer = processes.trainer("out", *WAITING, *TCP, "--keys", "keys", "--steps", "30")
    trainer.says("scorers connect with: ")
    found = re.search(r"(scorer) --connect (tcp://127\.0\.0\.1:\d+) --keys keys\n", trainer.output)
    assert found, trainer.output
    stranger = tmp_path / "stranger"
    make_folder(stranger)
    (stranger / "trainer.pub").write_bytes((keys / "trainer.pub").read_bytes())
    kept_out = processes.synthetic_scorer("kept-out", found[2], "--keys", "stranger", "--connect-s", "1")
    trainer.says("was kept out: its key is not in keys/allowed")
    listed = processes.scorer("listed", found[2], "--keys", "keys", *DATA)
    trainer.succeeds()
    listed.succeeds()
    assert kept_out.code() == 4
    assert "the trainer refused the key stranger/scorer.key" in kept_out.output
    summary = processes.summary("out")
    assert summary["selected_fraction"] == 1.0
    assert summary["events"]["scorers joined"] == 1
    assert summary["events"]["peers kept out"] >= 1
    assert_balanced(summary)
    secrets = [read_pair(keys / name) for name in ("trainer.key", "scorer.key")]
    for path in [trainer.log, listed.log, kept_out.log, *(path for path in (tmp_path / "out").rglob("*"))]:
        content = path.read_bytes() if path.is_file() else b""
        assert not any(half in content for pair in secrets for half in (pair.secret, pair.public)), path


@pytest.mark.parametrize(
    ("own", "part"),
    [
        ("wrong server key", r"ended the handshake: probably its key is not the one in .*/trainer\.pub"),
        ("unlisted key", r"refused the key .*/scorer\.key: is its \.pub file in the trainer's allowed/ folder\?"),
        ("none", "ended the handshake: probably it wants keys"),
    ],
)
def test_a_scorer_that_is_kept_out_names_the_probable_cause(
    own: str, part: str, keys: Path, tmp_path: Path, listening: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = listening(*DATA, *TCP, "--keys", str(keys))
    stranger = tmp_path / "stranger"
    make_folder(stranger)
    if own == "unlisted key":
        (stranger / "trainer.pub").write_bytes((keys / "trainer.pub").read_bytes())
    access = ["--insecure"] if own == "none" else ["--keys", str(stranger)]
    assert scorer(["--connect", endpoint, *access, "--backend", "synthetic", "--connect-s", "0.5"]) == 4
    assert re.search(f"error: no trainer heard at {endpoint} for 1 s; .*{part}", capsys.readouterr().err)


def test_a_trainer_with_keys_that_others_can_read_does_not_start(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer.__main__ import main as trainer

    (keys / "trainer.key").chmod(0o644)
    out = tmp_path / "out"
    assert trainer([*DATA, *TCP, "--keys", str(keys), "--out", str(out), "--threads", "1"]) == 2
    assert f"chmod 600 {keys}/trainer.key" in capsys.readouterr().err


TCP_ERRORS = [
    (["--listen", "tcp://127.0.0.1:5555"], "needs keys: make them with `marginstream keygen DIR` .* or add --insecure"),
    (["--listen", "tcp://192.0.2.1:5555"], r"needs keys: make them with `marginstream keygen DIR` .* scorers$"),
    (["--listen", "tcp://192.0.2.1:5555", "--insecure"], "--insecure is for loopback tcp only.*use --keys DIR"),
    (["--listen", "tcp://eth0:5555", "--insecure"], "--insecure is for loopback tcp only"),
    (["--insecure"], "no --listen names any; leave it out"),
    (["--listen", "ipc:///tmp/x", "--insecure"], "--insecure is for loopback tcp only.*ipc needs no keys"),
    (["--listen", "tcp://127.0.0.1:5555", "--insecure", "--keys", "k"], "--insecure contradicts --keys"),
    (["--listen", "tcp://0.0.0.0:5555", "--keys", "k"], "every interface.*name the address of one.*--listen-on-all"),
    (["--listen", "tcp://[::]:5555", "--keys", "k"], "every interface"),
    (["--listen", "tcp://[::ffff:0.0.0.0]:5555", "--keys", "k"], "every interface"),
    (["--listen", "tcp://0.0.0.0:5555", "--listen-on-all"], "needs keys"),
    (["--listen", "tcp://0.0.0.0:5555", "--listen-on-all", "--insecure"], "--insecure is for loopback tcp only"),
]


@pytest.mark.parametrize("kind", [RunOptions, TrainerOptions])
@pytest.mark.parametrize(("flags", "words"), TCP_ERRORS)
def test_tcp_that_is_not_safe_is_refused_with_the_remedy(kind: type, flags: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_options(kind, flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--connect", "tcp://127.0.0.1:5555"], "needs keys.*or add --insecure"),
        (["--connect", "tcp://gpu7:5555"], r"needs keys: .* scorers$"),
        (["--connect", "tcp://gpu7:5555", "--insecure"], "--insecure is for loopback tcp only"),
        (["--connect", "ipc:///tmp/x", "--insecure"], "leave it out: ipc needs no keys"),
        (["--connect", "tcp://0.0.0.0:5555", "--keys", "k"], "all interfaces are no address to connect to"),
    ],
)
def test_a_scorer_is_told_the_same(flags: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_options(ScorerOptions, flags)


def test_scorers_of_a_run_on_all_interfaces_connect_over_loopback() -> None:
    flags = ["--listen", "tcp://0.0.0.0:5555", "--listen-on-all", "--keys", "k"]
    options = load_options(RunOptions, flags)
    told = options.for_scorer(connect=str(options.listen))
    assert (told.connect, told.keys) == ("tcp://127.0.0.1:5555", Path("k"))


def test_a_trainer_may_name_an_interface_and_a_run_an_address() -> None:
    flags = ["--listen", "tcp://eth0:5555", "--keys", "k"]
    assert load_options(TrainerOptions, flags).listen == "tcp://eth0:5555"
    with pytest.raises(ConfigError, match="name an address of the interface"):
        load_options(RunOptions, flags)


def test_ipc_needs_no_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_options(TrainerOptions, []).keys is None
    assert load_options(ScorerOptions, ["--connect", "ipc:///tmp/x"]).keys is None
    assert command(["keygen"]) == 2

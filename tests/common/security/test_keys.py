"""Key files: who may read them, what is in them, and what is never overwritten."""

from pathlib import Path

import pytest

from common.cli import main
from common.errors import ConfigError
from common.security.credentials import Credentials
from common.security.gate import Gate
from common.security.keygen import add_scorers, make_folder, new_pair
from common.security.keys import read_allowed, read_pair, read_public, stamp_of


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_keygen_writes_private_files_that_trainer_and_scorer_can_use(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    assert main(["keygen", str(folder), "--names", "gpu1", "gpu2"]) == 0
    for path in (folder, *folder.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    Gate(folder)
    for own in (folder, folder / "gpu1", folder / "gpu2"):
        Credentials(own)
    assert sorted(read_allowed(folder / "allowed")[0].values()) == ["gpu1", "gpu2", "scorer"]
    assert len({path.read_text() for path in folder.rglob("scorer.key")}) == 3, "each has a key of its own"


def test_keygen_overwrites_nothing(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in keys.rglob("*.*")}
    assert main(["keygen", str(keys)]) == 2
    assert "trainer.key is there already and keys are never overwritten" in capsys.readouterr().err
    add_scorers(keys, ("gpu1",))
    with pytest.raises(ConfigError, match="gpu1 is there already"):
        add_scorers(keys, ("gpu2", "gpu1"))
    assert not (keys / "gpu2").exists(), "it is all of them or none"
    assert {path: path.read_bytes() for path in before} == before


def test_keygen_writes_through_no_link(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (folder / "trainer.pub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"trainer\.pub is there already"):
        make_folder(folder)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--names", "../b"], ["a", "--names", "allowed"]])
def test_keygen_says_what_it_takes(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", *words]) == 2
    assert "takes one folder" in (error := capsys.readouterr().err) or "a name has letters" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "trainer.key", "scorer.key", "trainer.pub", "allowed", "allowed/scorer.pub"])
@pytest.mark.parametrize("loose", [0o640, 0o604, 0o620])
def test_files_that_others_may_use_are_refused_with_the_remedy(keys: Path, name: str, loose: int) -> None:
    is_folder = (keys / name).is_dir()
    (keys / name).chmod(loose | (0o100 if is_folder else 0))
    with pytest.raises(ConfigError, match=rf"others \(mode .*chmod {700 if is_folder else 600} {keys / name}"):
        (Gate if name in ("trainer.key", "allowed", "allowed/scorer.pub") else Credentials)(keys)


def test_a_gate_wants_its_whole_folder_private(keys: Path) -> None:
    keys.chmod(0o750)
    with pytest.raises(ConfigError, match=rf"others \(mode 0750\); .*chmod 700 {keys}$"):
        Gate(keys)


@pytest.mark.parametrize("change", ["remove", "chmod", "write", "replace", "add", "retarget"])
def test_a_link_to_nothing_in_a_folder_hides_no_change_beside_it(keys: Path, change: str) -> None:
    allowed, file, elsewhere = keys / "allowed", keys / "allowed" / "scorer.pub", keys / "elsewhere"
    (allowed / ".#scorer.pub").symlink_to("me@here.1234:5678")
    (allowed / "z.pub").symlink_to(elsewhere)
    elsewhere.write_text("before")
    before = stamp_of(allowed)
    assert stamp_of(allowed) == before
    if change == "remove":
        file.unlink()
    elif change == "chmod":
        file.chmod(0o640)
    elif change == "write":
        file.write_text("damaged")
    elif change == "replace":
        (keys / "trainer.pub").replace(file)
    elif change == "add":
        (allowed / "a.pub").touch()
    else:
        elsewhere.write_text("something else")
    assert stamp_of(allowed) != before


def test_a_path_that_cannot_be_looked_at_is_read_again_every_time(keys: Path) -> None:
    assert stamp_of(keys / "absent") != stamp_of(keys / "absent")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\0\xff",
        "public = 3\nsecret = 4\n",
        'public = "short"\nsecret = "short"\n',
        f'public = "{"~" * 40}"\nsecret = "{"~" * 40}"\n',
        f'public = "{"#" * 40}"\nsecret = "{"#" * 40}"\n',
        "x" * 5000,
    ],
)
def test_a_damaged_file_is_named_and_not_quoted(keys: Path, content: str) -> None:
    (keys / "scorer.key").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"scorer\.key (is not a key file|holds no public key)") as caught:
        read_pair(keys / "scorer.key")
    assert not content or content not in str(caught.value)


def test_halves_of_different_pairs_are_refused(keys: Path) -> None:
    one, other = new_pair(), new_pair()
    (keys / "scorer.key").write_text(f'public = "{one.public.decode()}"\nsecret = "{other.secret.decode()}"\n')
    with pytest.raises(ConfigError, match="two halves of different pairs"):
        Credentials(keys)


def test_a_secret_key_does_not_pass_for_a_public_one(keys: Path) -> None:
    with pytest.raises(ConfigError, match="holds a secret key where a public one belongs"):
        read_public(keys / "trainer.key")


def test_a_missing_folder_says_what_makes_one(tmp_path: Path) -> None:
    for kind in (Gate, Credentials):
        with pytest.raises(ConfigError, match=r"cannot read .*: No such file.*`marginstream keygen`"):
            kind(tmp_path / "absent")


def test_secrets_are_not_in_what_a_key_pair_shows_of_itself() -> None:
    pair = new_pair()
    assert pair.secret.decode() not in f"{pair} {pair!r}"

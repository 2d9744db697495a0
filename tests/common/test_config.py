"""Options: one declaration, three sources, and messages that a person can act on."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.config import (
    AugmentOptions,
    Options,
    RunOptions,
    ScorerOptions,
    TrainerOptions,
    check_connect,
    check_listen,
    describe_options,
    load_options,
    to_toml,
)
from common.config.flags import flag, option_keys
from common.errors import ConfigError

ENDPOINT = "ipc:///tmp/trainer"
FLAT = """
    config data data_root image_size model head init method mode steps batch_size candidates chunk_size push_every
    max_staleness fallback transfer wire optimizer lr precision scorers device scorer_device threads seed out listen
    backend dry_run
"""
STALE_ENTROPY = 'mode = "stale"\nmethod = "entropy"\n'
UNIFORM = 'mode = "uniform"\nmethod = "uniform"\n'


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def refusal(kind: type[Options], *argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_options(kind, argv)
    return str(caught.value)


def test_the_options_that_people_type_most_have_flat_names() -> None:
    assert set(FLAT.split()) <= set(option_keys(RunOptions))
    assert "connect" in option_keys(ScorerOptions)


def test_defaults_are_those_of_the_design() -> None:
    options = load_options(RunOptions, [])
    assert (options.mode, options.method, options.candidates) == ("stale", "mms", "auto")
    assert (options.push_every, options.max_staleness, options.fallback) == (8, 64, "uniform")
    assert (options.transfer, options.precision, options.service.start_wait_s) == ("reference", "float32", 60)
    assert (options.selection.warmup_fraction, options.selection.anneal_fraction) == (0.05, 0.1)
    assert options.resolved_chunk_size == 2 * options.batch_size


def test_a_flag_and_a_key_of_a_file_mean_the_same(tmp_path: Path) -> None:
    path = write(
        tmp_path, "push_every = 20\ncandidates = 320\n[augment]\nflip = true\n[schedule]\nmilestones = [5, 9]\n"
    )
    from_file = load_options(TrainerOptions, ["--config", path])
    flags = ["--push-every", "20", "--candidates", "320", "--augment.flip", "--schedule.milestones", "5", "9"]
    assert from_file.dump() == load_options(TrainerOptions, flags).dump()


def test_a_flag_overrides_the_file_and_the_file_overrides_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, "steps = 7\nlr = 0.5\n[optim]\nmomentum = 0.5\nweight_decay = 0.0\n")
    options = load_options(TrainerOptions, ["--config", path, "--steps", "9", "--optim.momentum", "0.25"])
    assert (options.steps, options.lr, options.batch_size) == (9, 0.5, 32)
    assert (options.optim.momentum, options.optim.weight_decay) == (0.25, 0.0)


def test_one_file_serves_every_command(tmp_path: Path) -> None:
    path = write(tmp_path, f'steps = 7\nprecision = "bf16"\nscorers = 2\nconnect = "{ENDPOINT}"\nmodel = "resnet8"\n')
    assert load_options(RunOptions, ["--config", path]).scorers == 2
    assert load_options(TrainerOptions, ["--config", path]).steps == 7
    scorer = load_options(ScorerOptions, ["--config", path])
    assert (scorer.connect, scorer.precision, scorer.model) == (ENDPOINT, "bf16", "resnet8")


def test_what_was_given_explicitly_is_known() -> None:
    assert load_options(TrainerOptions, ["--steps", "2000"]).model_fields_set == {"steps"}


def test_a_scorer_takes_device_for_scorer_device_but_a_file_keeps_them_apart(tmp_path: Path) -> None:
    path = write(tmp_path, 'device = "cuda:0"\nscorer_device = "cuda:1"\n')
    assert load_options(ScorerOptions, ["--connect", ENDPOINT, "--config", path]).scorer_device == "cuda:1"
    assert load_options(ScorerOptions, ["--connect", ENDPOINT, "--device", "cpu"]).scorer_device == "cpu"


def test_none_takes_back_an_option_that_a_file_gave(tmp_path: Path) -> None:
    path = write(tmp_path, "chunk_size = 64\n")
    assert load_options(TrainerOptions, ["--config", path, "--chunk-size", "none"]).chunk_size is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--push-every -1", "--push-every must be greater than 0, got -1"),
        ("--steps 1.5", "--steps must be an integer, got 1.5"),
        ("--lr nan", "--lr must be a finite number, got nan"),
        ("--mode slow", "--mode must be uniform, fresh or stale, got slow"),
        ("--candidates -3", "--candidates must be auto or an integer greater than 0, got -3"),
        ("--payload best", "--payload must be all, or best:K with K of at least 1, got best"),
        ("--device gpu", "--device must be auto, cpu, cuda, cuda:N or mps, got gpu"),
        ("--selection.warmup-fraction 2", "--selection.warmup-fraction must be at most 1, got 2"),
        ("--schedule.milestones 5 x", "--schedule.milestones must be an integer, got x"),
        ("--steps", "--steps needs a value"),
        ("--steps 1 2", "--steps takes one value, got 1 2"),
        ("--push-evry 3", "unknown option --push-evry; did you mean --push-every?"),
        ("--momentum 0.5", "unknown option --momentum; did you mean --optim.momentum?"),
        ("--qqq 1", "unknown option --qqq; see marginstream trainer --help"),
        ("--scorers 2", "--scorers is an option of marginstream run, not of marginstream trainer"),
        ("steps 3", "unexpected argument steps; options start with --, see marginstream trainer --help"),
    ],
)
def test_a_wrong_flag_is_named_with_the_value_seen_and_the_remedy(argv: str, message: str) -> None:
    assert refusal(TrainerOptions, *argv.split()) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("push_every = 0", "{path}: push_every must be greater than 0, got 0"),
        ("push_evry = 3", "{path}: unknown option push_evry; did you mean push_every?"),
        ("push-every = 3", "{path}: unknown option push-every; did you mean push_every?"),
        ("momentum = 0.5", "{path}: unknown option momentum; did you mean optim.momentum?"),
        ("[augment]\nflp = true", "{path}: unknown option augment.flp; did you mean augment.flip?"),
        ("augment = 3", "{path}: augment must be a table, got 3"),
        ("dry_run = true", "{path}: dry_run is a flag only and cannot be set in a file"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    assert refusal(TrainerOptions, "--config", path) == message.format(path=path)


def test_a_limit_between_options_names_the_file_that_set_one_of_them(tmp_path: Path) -> None:
    path = write(tmp_path, "max_staleness = 3")
    message = refusal(TrainerOptions, "--config", path)
    assert message.startswith("--max-staleness must be at least --push-every - 1 (7), got 3; ")
    assert message.endswith(f" (max_staleness set in {path})")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "No such file" in refusal(RunOptions, "--config", str(tmp_path / "absent.toml"))
    assert "mine.toml: not valid TOML" in refusal(RunOptions, "--config", write(tmp_path, "steps = = 3"))


def test_a_scorer_needs_an_endpoint() -> None:
    assert refusal(ScorerOptions).startswith("--connect is needed")


@pytest.mark.parametrize("argv", ["--mode uniform", "--method uniform", "--mode uniform --method uniform"])
def test_mode_uniform_is_method_uniform(argv: str) -> None:
    options = load_options(TrainerOptions, argv.split())
    assert (options.mode, options.method) == ("uniform", "uniform")


@pytest.mark.parametrize("argv", ["--mode uniform --method mms", "--mode fresh --method uniform"])
def test_uniform_with_its_opposite_is_a_conflict(argv: str) -> None:
    assert "contradicts" in refusal(TrainerOptions, *argv.split())


def test_a_flag_for_mode_or_method_wins_over_the_other_one_in_a_file(tmp_path: Path) -> None:
    stale = write(tmp_path, STALE_ENTROPY)
    assert load_options(TrainerOptions, ["--config", stale, "--mode", "uniform"]).method == "uniform"
    assert load_options(TrainerOptions, ["--config", stale, "--mode", "fresh"]).method == "entropy"
    uniform = write(tmp_path, UNIFORM)
    assert load_options(TrainerOptions, ["--config", uniform, "--mode", "fresh"]).method == "mms"
    assert load_options(TrainerOptions, ["--config", uniform, "--method", "loss"]).mode == "stale"


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ("--candidates 31", "--candidates must be at least --batch-size (32), got 31"),
        ("--candidates 96 --chunk-size 64", "--candidates must be a multiple of --chunk-size (64), got 96"),
        ("--chunk-size 321", "--chunk-size must be at most the candidates of a step (320, for auto), got 321"),
        (
            "--batch-size 8192 --chunk-size 65537",
            "--chunk-size must be at most 65536, for scorers to take it as one lease, got 65537; give a smaller one",
        ),
        ("--batch-size 32769", "got 65538, its default for --batch-size 32769; give a smaller one"),
        (
            "--batch-size 32769 --candidates 131076",
            "got 65538, its default for --batch-size 32769; give a smaller one that divides --candidates (131076)",
        ),
        ("--push-every 9 --max-staleness 7", "--max-staleness must be at least --push-every - 1 (8), got 7"),
        ("--optim.nesterov --optim.momentum 0", "--optim.nesterov needs"),
        ("--optim.nesterov --optimizer adam", "--optim.nesterov needs"),
        ("--schedule.name step", "--schedule.name step needs --schedule.milestones"),
        ("--schedule.name step --schedule.milestones 5 --schedule.milestone-shares 0.5", "0.5 0.75; got both"),
        ("--schedule.milestones 9 5", "--schedule.milestones must be positive and rise, got 9 5"),
        ("--schedule.milestone-shares 0.5 1", "--schedule.milestone-shares must be in (0, 1) and rise, got 0.5 1.0"),
        ("--selection.warmup-fraction 0.6 --selection.anneal-fraction 0.6", "must add up to at most 1, got 1.2"),
        ("--transfer payload --payload best:2", "sends 10 of 320 candidates, fewer than --batch-size (32); raise K"),
        ("--transfer payload --payload best:65", "must have K of at most --chunk-size (64), got 65"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(argv: str, part: str) -> None:
    assert part in refusal(TrainerOptions, *argv.split())


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ("--trainers 0", "--trainers must be at least 1, got 0"),
        (
            "--trainers 2 --device cuda:0",
            "two ranks share a GPU; leave --device out and name all with --devices",
        ),
        ("--trainers 2 --device cuda", "--device cuda is one device, and --trainers 2 take one each"),
        ("--devices cuda cuda:0", "--devices names cuda:0 twice; leave one out"),
        ("--devices auto cpu", "--devices auto cpu: auto stands for all GPUs, so it stands alone"),
        ("--devices gpu", "--devices must be auto, cpu, cuda, cuda:N or mps, got gpu"),
    ],
)
def test_devices_that_ranks_cannot_have_are_refused(argv: str, part: str) -> None:
    assert part in refusal(RunOptions, *argv.split())


def test_devices_are_a_list_in_flags_and_files_and_auto_names_none(tmp_path: Path) -> None:
    def devices(text: str) -> tuple[str, ...]:
        return load_options(RunOptions, ["--config", write(tmp_path, text)]).devices

    assert load_options(RunOptions, ["--devices", "cuda:0", "cpu"]).devices == ("cuda:0", "cpu")
    assert devices('devices = ["cuda:0", "cpu"]') == ("cuda:0", "cpu")
    assert load_options(RunOptions, ["--devices", "auto"]).devices == devices('devices = "auto"') == devices("") == ()


def test_ranks_are_told_the_same_but_their_device(tmp_path: Path) -> None:
    run = RunOptions(trainers=2, batch_size=7)
    told = [run.for_trainer(listen=ENDPOINT, out=tmp_path, device=device) for device in ("cuda:0", "cuda:1")]
    assert told[0].model_copy(update={"device": "cuda:1"}) == told[1]
    assert told[0].batch_size == 7


@pytest.mark.parametrize(
    "argv",
    [
        "--mode uniform --candidates 1 --max-staleness 0",
        "--mode fresh --max-staleness 0",
        "--push-every 1 --max-staleness 0 --candidates 320 --chunk-size 320 --fallback wait",
        "--transfer payload --payload best:8",
        "--selection.warmup-fraction 0.5 --selection.anneal-fraction 0.5",
    ],
)
def test_limits_apply_only_where_they_mean_something(argv: str) -> None:
    load_options(TrainerOptions, argv.split())


@given(batch_size=st.integers(1, 64), multiple=st.floats(1, 12))
def test_the_default_chunk_divides_the_candidates_and_holds_a_batch(batch_size: int, multiple: float) -> None:
    candidates = max(batch_size, int(batch_size * multiple))
    options = TrainerOptions(batch_size=batch_size, candidates=candidates)
    assert candidates % options.resolved_chunk_size == 0
    assert options.resolved_chunk_size >= batch_size
    TrainerOptions(batch_size=batch_size, candidates=candidates, chunk_size=options.resolved_chunk_size)


def test_a_chunk_has_as_many_positions_as_a_lease_and_no_limit_where_nothing_is_leased() -> None:
    assert TrainerOptions(batch_size=32768).resolved_chunk_size == 65536
    assert TrainerOptions(batch_size=32769, chunk_size=32769).resolved_chunk_size == 32769
    assert TrainerOptions(mode="fresh", batch_size=32769).resolved_chunk_size == 327690
    assert TrainerOptions(mode="uniform", batch_size=100_000).batch_size == 100_000


def test_fresh_mode_scores_all_candidates_of_a_step_in_one_chunk() -> None:
    assert TrainerOptions(mode="fresh").resolved_chunk_size == 320
    assert TrainerOptions(mode="fresh", candidates=96).resolved_chunk_size == 96


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///tmp/x",
        "ipc://x.sock",
        "tcp://127.0.0.1:5555",
        "tcp://localhost:1",
        "tcp://[::1]:9",
        "tcp://192.0.2.7:5555",
        "tcp://eth0:5555",
        "tcp://gpu-7.example.org:5555",
    ],
)
def test_paths_addresses_and_names_are_endpoints(endpoint: str) -> None:
    assert check_connect(endpoint) == check_listen(endpoint) == endpoint


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        ("127.0.0.1:5555", "must be ipc://PATH or tcp://HOST:PORT"),
        ("inproc://x", "must be ipc://PATH or tcp://HOST:PORT"),
        ("ipc://", "must name a socket file"),
        ("ipc://" + "x" * 101, "at most 100 bytes, not 101"),
        ("tcp://127.0.0.1", "must name host and port"),
        ("tcp://127.0.0.1:0", "port from 1 to 65535"),
        ("tcp://127.0.0.1:99999", "port from 1 to 65535"),
        ("tcp://*:5555", "by its address (IPv6 in brackets) or name"),
        ("tcp://0:5555", "by its address (IPv6 in brackets) or name"),
        ("tcp://00.0.0.0:5555", "by its address (IPv6 in brackets) or name"),
        ("tcp://0x0:5555", "by its address (IPv6 in brackets) or name"),
        ("tcp://::1:5555", "by its address (IPv6 in brackets) or name"),
        ("tcp://a b:5555", "by its address (IPv6 in brackets) or name"),
    ],
)
def test_other_endpoints_are_refused_with_the_reason(endpoint: str, part: str) -> None:
    for check in (check_connect, check_listen):
        with pytest.raises(ValueError, match="must") as caught:
            check(endpoint)
        assert part in str(caught.value)
    assert endpoint in refusal(ScorerOptions, "--connect", endpoint)


def test_only_a_listener_may_take_any_free_port() -> None:
    assert check_listen("tcp://127.0.0.1:*")
    with pytest.raises(ValueError, match="port from 1 to 65535"):
        check_connect("tcp://127.0.0.1:*")


def test_options_do_not_change_once_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AugmentOptions().flip = True  # type: ignore[misc]


def test_resolved_options_read_back_equal(tmp_path: Path) -> None:
    argv = [
        "--candidates",
        "64",
        "--data-root",
        '/a\\b"c',
        "--optim.clip-norm",
        "1e-20",
        "--log.no-tensorboard",
        "--scorers",
        "3",
    ]
    options = load_options(RunOptions, [*argv, "--schedule.milestones", "3", "4", "--out", str(tmp_path)])
    path = write(tmp_path, describe_options(options, "run"))
    again = load_options(RunOptions, ["--config", path])
    assert again.model_copy(update={"config": None}) == options


def test_run_hands_each_process_its_options(tmp_path: Path) -> None:
    run = load_options(
        RunOptions, ["--mode", "fresh", "--precision", "bf16", "--augment.flip", "--threads", "3", "--steps", "5"]
    )
    trainer = run.for_trainer(listen=ENDPOINT, out=tmp_path, device="cuda:0")
    assert type(trainer) is TrainerOptions
    assert (trainer.steps, trainer.listen, trainer.out, trainer.device) == (5, ENDPOINT, tmp_path, "cuda:0")
    assert trainer.precision == "bf16"
    scorer = run.for_scorer(connect=ENDPOINT)
    assert (scorer.precision, scorer.augment.flip, scorer.threads) == ("bf16", True, 3)
    assert load_options(ScorerOptions, ["--config", write(tmp_path, to_toml(scorer.dump()))]).dump() == scorer.dump()


TABLES = st.recursive(
    st.text(max_size=8) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
    | st.lists(st.integers(0, 9) | st.text(max_size=3)),
    lambda values: st.dictionaries(st.text(max_size=6), values, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(table=st.dictionaries(st.text(max_size=6), TABLES, max_size=5))
def test_toml_that_we_write_is_read_back_equal(table: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(table)) == table


def test_every_option_has_a_description() -> None:
    def undescribed(kind: type[Options]) -> list[str]:
        return [name for name, field in kind.model_fields.items() if not field.description]

    for kind in (RunOptions, ScorerOptions):
        assert undescribed(kind) == []
    assert flag("augment.crop_padding") == "--augment.crop-padding"

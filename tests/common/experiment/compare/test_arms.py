"""What `--arms` may say, and what is added to it."""

from typing import Any

import pytest

from common.errors import ConfigError
from common.experiment.compare.arms import read_arm, read_arms
from common.experiment.compare.cores import with_equal_cores

GIVEN: dict[str, Any] = {"steps": 50, "method": "selective-backprop", "selection": {"beta": 2.0}, "threads": 1}


def test_a_number_after_stale_is_its_push_period() -> None:
    short, long = read_arm("stale:16", GIVEN), read_arm("stale:push-every=16", GIVEN)
    assert short.options == long.options
    assert (short.options.mode, short.options.push_every, short.options.steps) == ("stale", 16, 50)


def test_an_arm_overrides_what_is_shared() -> None:
    arm = read_arm("stale:8, precision=bf16, lr=0.5, selection.beta=3, threads=none, log.margins=false", GIVEN)
    options = arm.options
    assert (options.precision, options.lr, options.selection.beta, options.threads) == ("bf16", 0.5, 3.0, None)
    assert not options.log.margins
    assert arm.name == "stale:8,precision=bf16,lr=0.5,selection.beta=3,threads=none,log.margins=false"


def test_the_uniform_arm_goes_without_the_method_and_its_parameters() -> None:
    options = read_arm("uniform", GIVEN | {"irreducible": "x.pt"}).options
    assert (options.mode, options.method, options.selection.beta, options.irreducible) == ("uniform",) * 2 + (1.0, None)


def test_shared_parameters_go_to_the_arms_whose_method_reads_them() -> None:
    assert read_arm("fresh", GIVEN).options.selection.beta == 2.0
    assert read_arm("fresh:method=loss", GIVEN).options.selection.beta == 1.0


@pytest.mark.parametrize(("push_every", "max_staleness"), [(8, 64), (64, 128), (256, 512)])
def test_a_long_push_period_gets_room_for_two_of_them(push_every: int, max_staleness: int) -> None:
    assert read_arm(f"stale:{push_every}", {}).options.max_staleness == max_staleness


def test_a_given_max_staleness_stays() -> None:
    assert read_arm("stale:64,max-staleness=80", {}).options.max_staleness == 80
    assert read_arm("stale:64", {"max_staleness": 90}).options.max_staleness == 90


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("unform", "arm unform: unknown arm unform; did you mean uniform?"),
        ("best", "arm best: unknown arm best; there are uniform, fresh, stale"),
        ("stale:", "arm stale:: nothing follows the colon; leave it out, or give KEY=VALUE"),
        ("fresh:8", "arm fresh:8: 8 is not KEY=VALUE"),
        ("stale:8,bf16", "arm stale:8,bf16: bf16 is not KEY=VALUE"),
        ("stale:pushevery=8", "arm stale:pushevery=8: unknown option pushevery; did you mean push-every?"),
        ("stale:beta=3", "arm stale:beta=3: unknown option beta; did you mean selection.beta?"),
        ("stale:8,push-every=9", "arm stale:8,push-every=9: push-every is given twice"),
        ("stale:0", "arm stale:0: --push-every must be greater than 0, got 0"),
        ("stale:seed=4", "arm stale:seed=4: seed is set by the comparison itself"),
        (
            "fresh:model=resnet8",
            "arm fresh:model=resnet8: model is what all arms share: data, model and initialisation; give it once, ",
        ),
        ("stale:schedule.milestones=3", "arm stale:schedule.milestones=3: schedule.milestones takes a list, which an "),
        ("uniform:method=mms", "arm uniform:method=mms: --mode uniform contradicts --method mms: "),
        ("stale:20,max-staleness=3", "arm stale:20,max-staleness=3: --max-staleness must be at least --push-every - 1"),
        ("stale:method=mss", "arm stale:method=mss: --method must be one of "),
    ],
)
def test_a_wrong_arm_is_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_arm(word, GIVEN)
    assert str(caught.value).startswith(message)


def test_two_arms_that_are_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="--arms: stale:8 is the same as stale; leave one out"):
        read_arms(["stale", "fresh", "stale:8"], {})


def test_names_of_folders_are_safe_and_differ() -> None:
    names = [arm.folder_name for arm in read_arms(["stale:8", "stale:8,proxy-model=a/b:c,backend=proxy"], {})]
    assert names == ["stale-8", "stale-8-proxy-model=a-b-c-backend=proxy"]
    with pytest.raises(ConfigError, match="would share the folder"):
        read_arms(["stale:proxy-model=a:b,backend=proxy", "stale:proxy-model=a-b,backend=proxy"], {})


def test_a_plain_arm_on_the_cores_of_a_stale_one_is_added() -> None:
    arms = read_arms(["uniform", "fresh", "stale:8", "stale:64"], GIVEN)
    extended, notes = with_equal_cores(arms, GIVEN, num_gpus=0, cpu_count=2)
    names = [arm.name for arm in extended]
    assert names == ["uniform", "uniform:threads=2", "fresh", "stale:8", "stale:64"]
    assert notes == ["uniform:threads=2 was added because stale:8 computes on 2 cores, trainer and scorers together."]


@pytest.mark.parametrize(
    ("words", "num_gpus", "cpu_count"),
    [
        (["uniform", "uniform:threads=2", "stale:8"], 0, 2),  # is there
        (["stale:8"], 0, 2),  # nothing of its kind is listed
        (["uniform", "stale:8"], 0, 1),  # there is one core
        (["uniform", "stale:8"], 1, 2),  # on a GPU
    ],
)
def test_no_arm_is_added_without_need(words: list[str], num_gpus: int, cpu_count: int) -> None:
    arms = read_arms(words, GIVEN)
    assert with_equal_cores(arms, GIVEN, num_gpus=num_gpus, cpu_count=cpu_count) == (arms, [])

"""The command lines of what is deployed, as the programs that they name would read them."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.config import IrreducibleOptions, RunOptions, ScorerOptions, TrainerOptions, load_options
from common.config.base import Options
from common.config.compare import CompareFlags
from common.config.keygen import KeygenOptions
from common.config.plan import PlanOptions
from common.config.report import ReportOptions

DEPLOY = Path(__file__).parents[2] / "deploy"
KINDS: dict[str, type[Options]] = {
    "run": RunOptions,
    "trainer": TrainerOptions,
    "scorer": ScorerOptions,
    "irreducible": IrreducibleOptions,
    "compare": CompareFlags,
    "plan": PlanOptions,
    "report": ReportOptions,
    "keygen": KeygenOptions,
}


def read(words: Sequence[str], config: Path | None = None) -> Options:
    """The options of `marginstream COMMAND …`, or of `torchrun … -m trainer …`, maybe behind `with-keys FROM TO`.

    Args:
        config: the file that stands for /etc/marginstream/run.toml.

    Raises:
        ConfigError: as the command would say.
        SystemExit: torchrun would not take its part.
    """
    program, *arguments = words[3:] if words[0] == "with-keys" else words
    if config is not None:
        arguments = [word.replace("/etc/marginstream/run.toml", str(config)) for word in arguments]
    if Path(program).name == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(arguments)
        assert (given.module, given.training_script) == (True, "trainer"), words
        return load_options(TrainerOptions, given.training_script_args)
    assert Path(program).name == "marginstream", words
    return load_options(KINDS[arguments[0]], arguments[1:])


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Compose's and the shell's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`; `$$` is a dollar."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, kind, rest = found["name"], found["kind"], found["rest"]
        assert kind != ":?" or name in values, f"{name} is needed: {rest}"
        return values.get(name, rest or "")

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\}", value, text)


def fenced(page: Path) -> Iterator[list[str]]:
    """The words of each `marginstream` command in the shell blocks of a page, an image's too."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for index, (word, command) in enumerate(itertools.pairwise(words)):
                if Path(word).name.partition(":")[0] == "marginstream" and command in KINDS:
                    yield ["marginstream", *words[index + 1 :]]

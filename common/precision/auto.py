"""--precision auto: the fastest precision of this device that selects nearly what float32 selects, by measurement."""

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.data.source import Source
from common.errors import ConfigError
from common.models import find_head, gives_margins, unwrap
from common.precision.form import Form
from common.precision.forms import check_compile, compiles, make_form
from common.scoring import score_candidates
from common.selection.agreement import selected_overlap

log = logging.getLogger(__name__)

NUM_PROBES = 256
FEWEST_PROBES = 64
BUDGET_S = 0.8  # for the timed passes together
FEWEST_ROUNDS, MOST_ROUNDS = 2, 15
SELECTED_FRACTION = 0.1
# At initial weights, whose margins lie closer together than those of a trained model: on digits a ResNet-8 in int8 that
# shared 0.65 there shared 0.98 in training. By chance 0.1 are shared.
ENOUGH_OVERLAP = 0.4
ENOUGH_SPEED = 1.1  # below that float32, which is exact


@dataclass(frozen=True)
class Trial:
    """One precision on this device.

    Attributes:
        pass_s: seconds of scoring `num` samples, the least of several: what else the machine does only adds to it.
        speed: of float32's seconds over these.
        overlap: share of the same tenth selected as by float32, in [0, 1].
    """

    precision: str
    num: int
    pass_s: float
    speed: float
    overlap: float

    @property
    def words(self) -> str:
        return f"{self.precision} {self.speed:.1f} times as fast, {self.overlap:.0%} of the same selected"


def choose_precision(model: nn.Module, head: nn.Linear, source: Source, *, compile: bool = False) -> str:
    """The precision to score in, on the model's device; logged with its figures. Takes about a second.

    Args:
        model: not wrapped; left as it is.
        head: its last linear layer.
        source: training samples are read from it.
        compile: see `make_form`.
    """
    ids = torch.arange(min(NUM_PROBES, source.sample.num_samples))
    inputs, targets = source.train.fetch(ids)
    device = head.weight.device
    names = [name for name, module in unwrap(model).named_modules() if module is head]
    settled = settled_copy(model, source.prepare(inputs).to(device))
    settled_head = find_head(settled, names[0])
    score = "mms" if gives_margins(settled, source.sample, settled_head) else "loss"
    trials = try_precisions(
        settled, settled_head, source.prepare(inputs).to(device), targets.to(device), score, compile=compile
    )
    best = choose(trials)
    others = "; ".join(trial.words for trial in trials if trial.precision != "float32")
    log.info("--precision auto: %s on %s (against float32: %s)", best.precision, device, others or "nothing else here")
    return best.precision


def choose(trials: list[Trial]) -> Trial:
    """The fastest that selects nearly what float32 does; float32 where the gain is small."""
    good = [trial for trial in trials if trial.overlap >= ENOUGH_OVERLAP and trial.speed >= ENOUGH_SPEED]
    exact = next(trial for trial in trials if trial.precision == "float32")
    return max(good, key=lambda trial: trial.speed, default=exact)


def try_precisions(
    model: nn.Module, head: nn.Linear, inputs: Tensor, targets: Tensor, score: str, *, compile: bool = False
) -> list[Trial]:
    """Each precision that this device and this model have, float32 first, timed in turns.

    Args:
        inputs, targets: (B, ...) prepared, on the model's device; as many of them as fit into about a second are used.
        score: by which to select.
    """
    forms = _forms(model, head, compile)

    def scored(form: Form, num: int) -> Tensor:
        result = score_candidates(model, head, inputs[:num], targets[:num], [score], forward=form)
        return result.scores[score]

    num = _num_affordable(lambda some: scored(forms["float32"], some), len(inputs))
    for form in forms.values():
        form.calibrate(inputs[:num])
    scores = {precision: scored(form, num) for precision, form in forms.items()}
    seconds: dict[str, list[float]] = {precision: [] for precision in forms}
    # A single thread's own time is not what others on the machine take from it.
    is_alone = head.weight.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if is_alone else time.perf_counter
    began = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() - began > BUDGET_S:
            break
        for precision, form in forms.items():
            started = clock()
            scored(form, num)  # waits for the device
            seconds[precision].append(clock() - started)
    exact_s = min(seconds["float32"])
    num_selected = max(1, round(SELECTED_FRACTION * num))
    return [
        Trial(
            precision,
            num,
            pass_s := min(seconds[precision]),
            exact_s / pass_s,
            _overlap(scores["float32"], scores[precision], num_selected, lowest_is_hard=score == "mms"),
        )
        for precision in forms
    ]


def _overlap(exact_B: Tensor, low_B: Tensor, num: int, *, lowest_is_hard: bool) -> float:
    """Share of the same selected; 0 where a candidate that float32 scores gets no finite score, and would be lost."""
    if bool((exact_B.isfinite() & ~low_B.isfinite()).any()):
        return 0.0
    return selected_overlap(exact_B, low_B, num, lowest_is_hard=lowest_is_hard)


def _forms(model: nn.Module, head: nn.Linear, compile: bool) -> dict[str, Form]:
    """By precision, float32 first; without those that are not to be had here. Raises ConfigError as `make_form`."""
    if compile:
        check_compile(head.weight.device)
    forms: dict[str, Form] = {}
    for precision in ("float32", "bf16", "fp16", "int8"):
        try:
            forms[precision] = make_form(model, head, precision, compile=compile and compiles(precision))
        except ConfigError as error:
            log.log(logging.INFO if compile else logging.DEBUG, "--precision auto leaves out %s: %s", precision, error)
    return forms


def _num_affordable(scored: Callable[[int], Tensor], num: int) -> int:
    """How many samples can go through the fewest rounds within the budget, if low precisions cost half of float32."""
    few = min(FEWEST_PROBES // 4, num)
    scored(few)
    started = time.perf_counter()
    scored(few)
    per_sample_s = (time.perf_counter() - started) / few
    return min(num, max(FEWEST_PROBES, int(BUDGET_S / (2 * FEWEST_ROUNDS * per_sample_s))))


@torch.no_grad()
def settled_copy(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose BatchNorms know the statistics of these inputs, as a trained model's would; in eval mode."""
    model = copy.deepcopy(unwrap(model)).requires_grad_(False)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if norms and len(inputs) > 1:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        model.train()
        with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):  # dropout
            model(inputs[:FEWEST_PROBES])
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()

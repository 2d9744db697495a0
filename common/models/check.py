"""Whether a model takes the data, before anything is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.data.source import SampleSpec
from common.errors import ConfigError
from common.models.head import unwrap
from common.models.loss import own_loss, per_sample_loss

NUM_PROBES = 2  # with one, a model that drops or squeezes the batch dimension could pass


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has its own flag back, for parts may be frozen while others train."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_model(model: nn.Module, sample: SampleSpec, head: nn.Linear, *, name: str | None = None) -> None:
    """One forward pass and one loss, of zeros, in eval mode. Parameters, buffers and flags stay as they are.

    Args:
        model: wrapped or not, its parameters on one device.
        head: its last linear layer.
        name: what the messages call the model; its class by default.

    Raises:
        ConfigError: the model does not take the data's shape, what it returns does not fit the targets, or its head
            has another number of outputs than the data have classes (unless the model has a loss of its own).
    """
    model = unwrap(model)  # no collectives, and nothing is compiled for a probe
    name = name or type(model).__name__
    _check_classes(name, model, sample, head)
    first = next(model.parameters())
    inputs = torch.zeros(NUM_PROBES, *sample.shape, dtype=_prepared_dtype(sample), device=first.device)
    targets = torch.zeros(NUM_PROBES, *sample.target_shape, dtype=torch.int64, device=first.device)
    with evaluating(model), torch.no_grad():
        outputs = _forward(name, model, inputs)
        try:
            per_sample_loss(model, outputs, targets)
        except ConfigError as error:
            raise ConfigError(f"--model {name}: {error}") from error
        except Exception as error:  # the model's own loss may raise anything
            raise ConfigError(f"--model {name}: its per_sample_loss failed: {_what(error)}") from error


def gives_margins(model: nn.Module, sample: SampleSpec, head: nn.Linear) -> bool:
    """Whether the outputs are (B, C) logits with a row of the head each, of which a minimal margin can be told."""
    model = unwrap(model)
    first = next(model.parameters())
    inputs = torch.zeros(NUM_PROBES, *sample.shape, dtype=_prepared_dtype(sample), device=first.device)
    with evaluating(model), torch.no_grad():
        outputs = model(inputs)
    return (
        isinstance(outputs, Tensor)
        and outputs.is_floating_point()
        and outputs.shape
        == (
            NUM_PROBES,
            head.out_features,
        )
    )


def _check_classes(name: str, model: nn.Module, sample: SampleSpec, head: nn.Linear) -> None:
    if own_loss(model) is None and head.out_features != sample.num_classes:
        raise ConfigError(
            f"--model {name}: its head has {head.out_features} outputs and the data have {sample.num_classes} classes; "
            "build the model for as many, or name the layer that makes the logits with --head"
        )


def _prepared_dtype(sample: SampleSpec) -> torch.dtype:
    """As `Source.prepare` leaves inputs: bytes and floats as float32, other integers as they are."""
    return torch.float32 if sample.dtype == torch.uint8 or sample.dtype.is_floating_point else sample.dtype


def _forward(name: str, model: nn.Module, inputs: Tensor) -> Tensor:
    shape = tuple(inputs.shape[1:])
    try:
        return model(inputs)
    except Exception as error:  # models reject a shape with whatever their first misfitting layer raises
        raise ConfigError(
            f"--model {name}: does not take the data's samples of shape {shape} ({inputs.dtype}): {_what(error)}"
        ) from error


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

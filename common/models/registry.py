"""Models by name.

| name | model |
|---|---|
| `small` | a convnet for images, for other data two linear layers; a step on one core takes milliseconds |
| `resnetN`, N = 6n+2 | He et al.'s residual nets for CIFAR with option A shortcuts; also `cifar-resnetN` |
| `wrn-N-K`, N = 6n+4 | Zagoruyko & Komodakis' wide residual nets without dropout |
| a name of torchvision's | its classification models, `resnet18` for one, without pretrained weights |
| `module:callable` | people's own |

`resnet50` and `resnet152` are torchvision's, since everyone means those by the names; the CIFAR nets of these depths
are `cifar-resnet50` and `cifar-resnet152`.
"""

import difflib
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from common.data.source import SampleSpec
from common.errors import ConfigError
from common.imports import import_callable, is_callable_name
from common.models.check import check_model
from common.models.head import find_head
from common.models.resnet import CifarResNet
from common.models.small import SmallConvNet, SmallMLP
from common.models.wide_resnet import WideResNet

FORMS = "small, resnetN (N = 6n+2), wrn-N-K (N = 6n+4), a classification model of torchvision, or module:callable"
EXAMPLES = ("small", "resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "wrn-16-4", "wrn-28-10")
TORCHVISION_DEPTHS = (18, 34, 50, 101, 152)


def build_model(name: str, sample: SampleSpec, *, seed: int, head: str | None = None) -> nn.Module:
    """A model that fits the data, on the CPU; checked by a forward pass of zeros.

    The initial parameters are a function of `seed`; the global generator is afterwards where it was.

    Args:
        name: see the table above. `module:callable` is called with `sample`, its `shape` and `num_classes` where it has
            parameters of these names; one or two others that it requires get num_classes, or sample and num_classes.
        seed: in [0, 2^63).
        head: dotted path of the layer that makes the logits; None takes the last nn.Linear.

    Raises:
        ConfigError: the name is unknown, or model, head and data do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs' generators too
        model = _construct(name, sample)
        check_model(model, sample, find_head(model, head), name=name)
    return model


def _construct(name: str, sample: SampleSpec) -> nn.Module:
    if is_callable_name(name):
        return _people_s_own(name, sample)
    if name == "small":
        return _small(name, sample)
    if match := re.fullmatch(r"(cifar-)?resnet(\d+)", name):
        depth = int(match[2])
        if match[1] or depth not in TORCHVISION_DEPTHS:
            _check_depth(name, depth, 2, also=", ".join(f"resnet{depth}" for depth in TORCHVISION_DEPTHS))
            return CifarResNet(depth, _image_shape(name, sample)[0], sample.num_classes)
    if match := re.fullmatch(r"wrn-(\d+)-([1-9]\d*)", name):
        depth, widening = int(match[1]), int(match[2])
        _check_depth(name, depth, 4)
        return WideResNet(depth, widening, _image_shape(name, sample)[0], sample.num_classes)
    return _from_torchvision(name, sample)


def _small(name: str, sample: SampleSpec) -> nn.Module:
    if len(sample.shape) == 3:
        return SmallConvNet(_image_shape(name, sample), sample.num_classes)
    if not _becomes_float(sample.dtype):
        raise ConfigError(
            f"--model {name}: needs images or features, and the data are {sample.dtype} of shape {sample.shape}; "
            "bring a model for tokens as module:callable"
        )
    return SmallMLP(sample.shape, sample.num_classes)


def _from_torchvision(name: str, sample: SampleSpec) -> nn.Module:
    from torchvision import models  # half a second, which the other names need not pay

    names = models.list_models(module=models)
    if name not in names:
        near = difflib.get_close_matches(name.lower(), [*EXAMPLES, *names], n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"--model {name}: unknown; must be {FORMS}.{hint}")
    channels, height, width = _image_shape(name, sample)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}  # auxiliary logits would come as a tuple
    elif name.startswith("vit_"):
        options = {"image_size": height}
    elif name.startswith("maxvit_"):
        options = {"input_size": (height, width)}
    try:
        model: nn.Module = models.get_model(name, weights=None, num_classes=sample.num_classes, **options)
    except Exception as error:  # the transformers check the image size while they are built
        raise ConfigError(f"--model {name}: cannot be built for images of shape {sample.shape}: {error}") from error
    _adapt_input_channels(model, channels)
    return model


def _adapt_input_channels(model: nn.Module, channels: int) -> None:
    """Give the first convolution another number of inputs, at the variance of its outputs."""
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if conv.in_channels == channels:
        return
    std = conv.weight.std().item() * (conv.in_channels / channels) ** 0.5
    conv.weight = nn.Parameter(conv.weight.new_empty(conv.out_channels, channels, *conv.kernel_size).normal_(std=std))
    conv.in_channels = channels


def _people_s_own(name: str, sample: SampleSpec) -> nn.Module:
    make = import_callable(name, option="--model")
    args, kwargs = _arguments(name, make, sample)
    model = make(*args, **kwargs)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"--model {name}: must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _arguments(name: str, make: Callable[..., Any], sample: SampleSpec) -> tuple[list[Any], dict[str, Any]]:
    """What `make` is called with; parameters with a default keep it unless they are named for what we have."""
    known: dict[str, Any] = {"sample": sample, "num_classes": sample.num_classes}
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # some built-in callables have no signature
        return [], {}
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    given = {parameter.name: known[parameter.name] for parameter in parameters if parameter.name in known}
    spare = [value for what, value in known.items() if what not in given]
    given |= {parameter.name: sample.shape for parameter in required if parameter.name == "shape"}
    others = [parameter for parameter in required if parameter.name not in given]
    if len(others) > len(spare) or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in others):
        missing = ", ".join(parameter.name for parameter in required)
        raise ConfigError(
            f"--model {name}: is called with sample (a common.data.source.SampleSpec), its shape and num_classes where "
            "it has parameters of these names, else with (sample, num_classes), (num_classes) or (), but requires "
            f"({missing}); give the others defaults"
        )
    given |= zip([parameter.name for parameter in others], spare[len(spare) - len(others) :], strict=True)
    return [given.pop(p.name) for p in required if p.kind is p.POSITIONAL_ONLY], given


def _image_shape(name: str, sample: SampleSpec) -> tuple[int, int, int]:
    if len(sample.shape) != 3 or not _becomes_float(sample.dtype):
        raise ConfigError(
            f"--model {name}: needs images (channels, height, width), and the data are {sample.dtype} of shape "
            f"{sample.shape}; choose small for features, or bring your own as module:callable"
        )
    channels, height, width = sample.shape
    return channels, height, width


def _becomes_float(dtype: torch.dtype) -> bool:
    return dtype == torch.uint8 or dtype.is_floating_point


def _check_depth(name: str, depth: int, offset: int, also: str = "") -> None:
    num_blocks, rest = divmod(depth - offset, 6)
    if num_blocks >= 1 and rest == 0:
        return
    near = dict.fromkeys(max(1, n) * 6 + offset for n in (num_blocks, num_blocks + 1))
    others = f"; torchvision's are {also}" if also else ""
    raise ConfigError(
        f"--model {name}: depth must be 6n+{offset}, such as {' or '.join(map(str, near))}, got {depth}{others}"
    )

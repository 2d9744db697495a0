"""Initial parameters that the networks of this folder share."""

from torch import nn


def initialise(model: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852) for convolutions, fan out; linear layers as torch has them, with zero bias.

    Draws from the global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

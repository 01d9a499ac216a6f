"""Parts under the names that they have in published weights."""

from collections import OrderedDict

from torch import nn


def named(**parts: nn.Module) -> nn.Sequential:
    """Parts under names, one after the other."""
    return nn.Sequential(OrderedDict(parts))

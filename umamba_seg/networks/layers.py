"""The layers a plan asks for: which convolution, norm, dropout and non-linearity, and how they are made."""

import pydoc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from umamba_seg.errors import UsageError

LayerType: TypeAlias = type[nn.Module]


@dataclass(frozen=True, slots=True)
class Layers:
    """Makes the layers of one network. The fields are nnU-Net's keyword arguments of the same names."""

    conv_op: LayerType
    conv_bias: bool
    norm_op: LayerType | None
    norm_op_kwargs: Mapping[str, Any]
    dropout_op: LayerType | None
    dropout_op_kwargs: Mapping[str, Any]
    nonlin: LayerType | None
    nonlin_kwargs: Mapping[str, Any]

    @property
    def dims(self) -> int:
        """Spatial axes."""
        return 2 if issubclass(self.conv_op, nn.Conv2d) else 3

    def conv(self, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | int = 1) -> nn.Module:
        """A convolution, padded so that stride 1 keeps the size of the map."""
        padding = tuple(width // 2 for width in kernel)
        return self.conv_op(inputs, outputs, tuple(kernel), stride=stride, padding=padding, bias=self.conv_bias)

    def pointwise(
        self, inputs: int, outputs: int, stride: Sequence[int] | int = 1, *, has_bias: bool | None = None
    ) -> nn.Module:
        """A convolution of kernel size 1; None leaves it to the plan whether it has a bias."""
        return self.conv_op(inputs, outputs, 1, stride=stride, bias=self.conv_bias if has_bias is None else has_bias)

    def transposed_conv(self, inputs: int, outputs: int, stride: Sequence[int]) -> nn.Module:
        """A transposed convolution that writes every voxel of its output once: its kernel is its stride."""
        conv: LayerType = nn.ConvTranspose2d if self.dims == 2 else nn.ConvTranspose3d
        return conv(inputs, outputs, tuple(stride), stride=tuple(stride), bias=self.conv_bias)

    def average_pool(self, stride: Sequence[int]) -> nn.Module:
        """The mean of the voxels that become one."""
        pool: LayerType = nn.AvgPool2d if self.dims == 2 else nn.AvgPool3d
        return pool(tuple(stride), stride=tuple(stride))

    def head(self, inputs: int, num_classes: int) -> nn.Module:
        """The convolution that writes logits; it has a bias whatever the plan says."""
        return self.conv_op(inputs, num_classes, 1, bias=True)

    def norm(self, channels: int) -> nn.Module:
        """The norm of the plan, or nothing."""
        return nn.Identity() if self.norm_op is None else self.norm_op(channels, **self.norm_op_kwargs)

    def dropout(self) -> nn.Module:
        """The dropout of the plan, or nothing."""
        return nn.Identity() if self.dropout_op is None else self.dropout_op(**self.dropout_op_kwargs)

    def nonlinearity(self) -> nn.Module:
        """The non-linearity of the plan, or nothing."""
        return nn.Identity() if self.nonlin is None else self.nonlin(**self.nonlin_kwargs)


def locate_conv(value: LayerType | str) -> LayerType:
    """The convolution that a plan names, of two or three axes."""
    found = locate_layer(value, "conv_op")
    if found is None or not issubclass(found, (nn.Conv2d, nn.Conv3d)):
        raise UsageError(f"conv_op must be torch.nn.Conv2d or torch.nn.Conv3d, got {value!r}", code="bad-plan")
    return found


def locate_layer(value: LayerType | str | None, option: str) -> LayerType | None:
    """The class that `option` of a plan names; None stays None, a class stays itself.

    Raises:
        UsageError: There is no layer of this name.
    """
    if value is None:
        return None
    found = pydoc.locate(value) if isinstance(value, str) else value
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UsageError(f"{option} must be a layer or its path, like torch.nn.ReLU; got {value!r}", code="bad-plan")
    return found

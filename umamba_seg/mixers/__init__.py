"""Mixers: modules that let every voxel see the others.

`create` builds one by name; `MIXERS` lists the names. Importing this package imports no torch.
"""

from umamba_seg.mixers.registry import MIXERS, create

__all__ = ["MIXERS", "create"]

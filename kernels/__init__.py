"""Selective scans: pure functions of tensors, registered with torch, run by the best backend at hand."""

from umamba_seg.kernels.conv import causal_conv
from umamba_seg.kernels.dispatch import Choice, info, use, why_not
from umamba_seg.kernels.scan import selective_scan, selective_scan_fn
from umamba_seg.kernels.volume import scan_volume

# `umamba_seg.kernels.torch` is a subpackage: the name torch is not free in this file.
__all__ = ["Choice", "causal_conv", "info", "scan_volume", "selective_scan", "selective_scan_fn", "use", "why_not"]

"""What is said of the machine that computes."""

import pytest
import torch

from umamba_seg.device import emulated


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_type_that_the_processor_emulates_is_told(precision, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported", lambda: False)

    assert f"no {precision} and emulates it" in (emulated(precision, "cpu") or "")


@pytest.mark.parametrize("precision", [None, "auto", "fp32"])
def test_nothing_is_told_where_nothing_is_emulated(precision, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)

    assert emulated(precision, "cpu") is None
    assert emulated("bf16", "cuda") is None
    assert (emulated("bf16", "cpu") is None) == torch.backends.mkldnn.is_available()

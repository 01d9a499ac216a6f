"""What a selective scan refuses, and how it says so."""

import re

import pytest
import torch

from tests.kernels.scan_cases import Case
from umamba_seg.kernels import selective_scan

R = torch.rand
# for u (2, 4, 9), 3 states
REFUSED = [
    ({"u": R(4, 9)}, "u must have 3 axes, b, d, l; got shape (4, 9)"),
    ({"delta": R(2, 4, 8)}, "delta must have the shape (b, d, l), (2, 4, 9); got (2, 4, 8)"),
    ({"z": R(1, 4, 9)}, "z must have the shape (b, d, l), (2, 4, 9); got (1, 4, 9)"),
    ({"A": R(4)}, "A must have 2 axes, d, n; got shape (4,)"),
    ({"A": R(5, 3)}, "A must have the shape (d, n), (4, 3); got (5, 3)"),
    ({"A": R(4, 0)}, "there must be channels and states; got u (2, 4, 9) and A (4, 0)"),
    ({"A": R(4, 3).to(torch.complex64)}, "A must be a real floating-point tensor, got torch.complex64"),
    ({"u": torch.ones(2, 4, 9, dtype=torch.int64)}, "u must be a real floating-point tensor, got torch.int64"),
    ({"B": R(9)}, "B must have the axes dn, bnl, bgnl; got shape (9,)"),
    ({"B": R(2, 9, 3)}, "B must have the shape (b, n, l), (2, 3, 9); got (2, 9, 3)"),
    ({"C": R(3, 4)}, "C must have the shape (d, n), (4, 3); got (3, 4)"),
    ({"C": R(2, 2, 3, 8)}, "C must have the shape (b, g, n, l), (2, 2, 3, 9); got (2, 2, 3, 8)"),
    ({"B": R(2, 3, 3, 9)}, "the groups of B must divide the 4 channels of A; got 3"),
    ({"B": R(2, 0, 3, 9)}, "the groups of B must divide the 4 channels of A; got 0"),
    ({"D": R(4, 1)}, "D must have the shape (d), (4,); got (4, 1)"),
    ({"delta_bias": R(3)}, "delta_bias must have the shape (d), (4,); got (3,)"),
    ({"initial_state": R(1, 4, 3)}, "initial_state must have the shape (q, d, n), (2, 4, 3); got (1, 4, 3)"),
    ({"u": torch.empty(2, 4, 9, device="meta")}, "delta must be on the device of u, meta; got cpu"),
    ({"layout": "ldb"}, "layout must be 'bdl' or 'bld', got 'ldb'"),
    ({"out_dtype": torch.int8}, "out_dtype must be a real floating-point type, got torch.int8"),
    ({"backend": "cuda"}, "backend must be one of 'auto', 'numba', 'triton', 'torch'; got 'cuda'"),
    ({"cu_seqlens": torch.tensor([0, 9])}, "cu_seqlens packs sequences into a batch of one; u has a batch of 2"),
]
REFUSED_PACKED = [
    (torch.tensor([0.0, 9.0]), "cu_seqlens must be int32 or int64"),
    (torch.tensor([], dtype=torch.int64), "cu_seqlens must be int32 or int64 and begin with 0"),
    (torch.tensor([[0, 9]]), "cu_seqlens must have 1 axes, q; got shape (1, 2)"),
    (torch.tensor([0, 8]), "offsets (cu_seqlens or reset) must rise from 0 to the number of tokens, 9; got [0, 8]"),
    (torch.tensor([1, 9]), "offsets (cu_seqlens or reset) must rise from 0 to the number of tokens, 9; got [1, 9]"),
    (
        torch.tensor([0, 5, 4, 9]),
        "offsets (cu_seqlens or reset) must rise from 0 to the number of tokens, 9; got [0, 5, 4, 9]",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_does_not_fit_is_refused_with_the_values_in_the_sentence(change, sentence):
    given = Case(batch=2, length=9, channels=4, states=3, left_out=("initial_state",)).tensors()

    with pytest.raises(ValueError, match=re.escape(sentence)):
        selective_scan(**given | change)


@pytest.mark.parametrize(("cu_seqlens", "sentence"), REFUSED_PACKED, ids=[sentence for _, sentence in REFUSED_PACKED])
def test_ends_of_sequences_that_make_no_sense_are_refused(cu_seqlens, sentence):
    given = Case(batch=1, length=9, channels=4, states=3, left_out=("initial_state",)).tensors()

    with pytest.raises(ValueError, match=re.escape(sentence)):
        selective_scan(**given, cu_seqlens=cu_seqlens)

"""What the scan of a volume refuses, how it says so, and what it understands."""

import re

import pytest
import torch

from tests.kernels.volume_cases import VolumeCase
from umamba_seg.kernels import scan_volume

R, T = torch.rand, torch.tensor
CASE = VolumeCase((3, 4), ("yx", "-x"), channels=4)  # batch 2, 2 states, 3 lines
REFUSED = [
    ({"routes": []}, "there must be at least one route"),
    (
        {"routes": ["yx", "zyx"]},
        "a route over 2 axes names each of y, x once, slow to fast, like 'yx' or '-y-x', or one of them",
    ),
    (
        {"routes": ["yx", "yy"]},
        "a route over 2 axes names each of y, x once, slow to fast, like 'yx' or '-y-x', or one",
    ),
    ({"routes": ["yx", "+"]}, "like '+x', for lines along it; got '+'"),
    ({"routes": ["yx", ""]}, "for lines along it; got ''"),
    ({"routes": ["yx", "y/x"]}, "for lines along it; got 'y/x'"),
    ({"routes": ["yx", "YX"]}, "for lines along it; got 'YX'"),
    ({"routes": ["yx", "+z"]}, "for lines along it; got '+z'"),
    ({"routes": ["yx", R(12)]}, "a table must be int32 or int64, (t,) or (b, t); got torch.float32 (12,)"),
    ({"routes": ["yx", T(3)]}, "a table must be int32 or int64, (t,) or (b, t); got torch.int64 ()"),
    (
        {"routes": ["yx", torch.zeros(3, 12, dtype=torch.int64)]},
        "a table for each batch item must have 2 rows; got (3, 12)",
    ),
    ({"routes": ["yx", torch.zeros(12, dtype=torch.int64, device="meta")]}, "a table must be on the device of u, cpu"),
    ({"routes": ["yx", T([0, 12])]}, "a table names voxels from 0 to 11, or -1; got 0 to 12"),
    ({"routes": ["yx", T([0, -2])]}, "a table names voxels from 0 to 11, or -1; got -2 to 0"),
    ({"routes": ["yx", T([3, 5, 3])], "merge": "stack"}, 'a table that names a voxel twice needs merge="sum"'),
    ({"routes": ["yx", T([3, 5, 3])], "merge": "concat"}, 'a table that names a voxel twice needs merge="sum"'),
    ({"reset": 0}, "reset must be a number of tokens, at least 1; got 0"),
    ({"reset": True}, "reset must be a number of tokens, at least 1; got True"),
    ({"reset": [None]}, "reset must be one for all routes or have one for each of the 2; got 1"),
    (
        {"reset": [T([0, 12]), T([0, 12])]},
        "a state starts anew at each line of '-x'; offsets are for rasters and tables",
    ),
    (
        {"reset": [T([0.0, 12.0]), None]},
        "offsets must be int32 or int64, (s + 1,), and begin with 0; got tensor([ 0., 12.])",
    ),
    ({"reset": [T([0, 13]), None]}, "must rise from 0 to the number of tokens, 12; got [0, 13]"),
    ({"reset": [T([0, 11]), None]}, "must rise from 0 to the number of tokens, 12; got [0, 11]"),
    ({"reset": [T([1, 12]), None]}, "must rise from 0 to the number of tokens, 12; got [1, 12]"),
    ({"reset": [T([0, 5, 4, 12]), None]}, "must rise from 0 to the number of tokens, 12; got [0, 5, 4, 12]"),
    ({"merge": "max"}, "merge must be one of 'sum', 'mean', 'stack', 'concat'; got 'max'"),
    ({"exclusive": "both"}, "exclusive must be one of None, 'own', 'shift'; got 'both'"),
    ({"decay_scale": [1.0]}, "decay_scale must have a positive number for each of the 2 routes; got [1.0]"),
    ({"decay_scale": [1.0, 0.0]}, "decay_scale must have a positive number for each of the 2 routes; got [1.0, 0.0]"),
    ({"u": R(2, 3, 4, 4).int()}, "u must be a real floating-point tensor, got torch.int32"),
    ({"delta": R(2, 3, 4, 5)}, "delta must have the shape (b, y, x, d), (2, 3, 4, 4); got (2, 3, 4, 5)"),
    ({"delta": R(3, 2, 3, 4, 4)}, "delta must have the shape (k, b, y, x, d), (2, 2, 3, 4, 4); got (3, 2, 3, 4, 4)"),
    ({"delta": R(4)}, "delta must have 4 axes, or 5 with one for routes; got (4,)"),
    ({"A": R(2, 2, 2, 2)}, "A must have 2 axes, or 3 with one for routes; got (2, 2, 2, 2)"),
    ({"A": R(5, 2)}, "A must have the shape (d, n), (4, 2); got (5, 2)"),
    ({"A": R(4, 0)}, "there must be channels and states; got u (2, 3, 4, 4) and A (4, 0)"),
    ({"B": R(2, 4, 3, 2)}, "B must have the shape (b, y, x, n), (2, 3, 4, 2); got (2, 4, 3, 2)"),
    ({"D": R(5)}, "D must have the shape (d), (4,); got (5,)"),
    ({"z": R(2, 3, 3, 4)}, "z must have the shape"),
    ({"weights": R(3)}, "weights must have the shape (k), (2,); got (3,)"),
    ({"weights": R(2, 2, 3)}, "weights must have the shape (b, k, d), (2, 2, 4); got (2, 2, 3)"),
    ({"initial_state": R(2, 2, 4, 2)}, "initial_state must have the shape (k, b, s, d, n)"),
    ({"initial_state": R(1, 2, 3, 4, 2)}, "initial_state must have the shape (k, b, s, d, n), (2, 2, 3, 4, 2)"),
    ({"initial_state": R(2, 2, 2, 4, 2)}, "initial_state must have the shape (k, b, s, d, n), (2, 2, 3, 4, 2)"),
    ({"routes": ["yx"] * 3, "merge": "concat"}, "merge='concat' needs channels that the 3 routes divide; u has 4"),
    ({"A": R(2, 2), "merge": "concat"}, "A must have the 4 channels of u; got (2, 2)"),
    ({"out_dtype": torch.int8}, "out_dtype must be a real floating-point type, got torch.int8"),
    ({"spatial_dims": 3}, "must have 5 axes, or 6 with one for routes"),
]


def given() -> dict:
    tensors = {name: x.float() for name, x in CASE.tensors().items() if name != "initial_state"}
    return tensors | CASE.options()


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_does_not_fit_is_refused_with_the_values_in_the_sentence(change, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        scan_volume(**given() | change, backend="torch")


@pytest.mark.parametrize(
    ("space", "routes", "own", "left_out"),
    [
        ((3,), ("+x", "-x"), ("u",), ("z",)),
        ((3, 4), ("+y", "shuffled"), ("u", "delta", "C"), ("z",)),
        ((3, 4), ("+y", "-x"), ("u", "delta", "B", "C"), ()),
        ((3, 4), ("+y", "x-y"), ("u", "delta", "B", "C"), ("z",)),
        ((2, 3, 2), ("+z", "shuffled"), (), ()),
        ((2, 3, 2), ("+z", "zyx"), ("u", "delta", "B", "C"), ("z",)),
    ],
)
def test_the_number_of_axes_is_told_by_rasters_z_or_a_tensor_without_routes(space, routes, own, left_out):
    case = VolumeCase(space, routes, own=own, left_out=left_out)
    expected = scan_volume(**case.tensors(), **case.options(), spatial_dims=len(space))

    assert torch.equal(scan_volume(**case.tensors(), **case.options()), expected)


def test_one_route_may_stand_for_itself():
    options = {"routes": "y-x", "delta_softplus": True}
    tensors = VolumeCase((3, 4), ("y-x",)).tensors()

    y, last = scan_volume(**tensors, **options, return_last_state=True)

    assert torch.equal(scan_volume(**tensors, **options | {"routes": ["y-x"]}), y)
    assert last.shape == (1, 2, 1, 3, 2)

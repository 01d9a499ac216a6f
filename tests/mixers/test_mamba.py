from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles.mamba import mamba_layer
from umamba_seg.mixers.branches import DELTA_MAX, DELTA_MIN
from umamba_seg.mixers.mamba import MambaMixer

PUBLISHED_SHAPES = {  # d_model 24: inner 48, rank 2
    "A_log": (48, 16),
    "D": (48,),
    "in_proj.weight": (96, 24),
    "conv1d.weight": (48, 1, 4),
    "conv1d.bias": (48,),
    "x_proj.weight": (34, 48),
    "dt_proj.weight": (48, 2),
    "dt_proj.bias": (48,),
    "out_proj.weight": (24, 48),
}


@dataclass(frozen=True)
class Case:
    """batch, map size, channels, options"""

    batch: int
    size: tuple[int, ...]
    channels: int
    options: tuple[tuple[str, int], ...] = ()


CASES = [
    Case(1, (1,), 1),
    Case(2, (3,), 5),
    Case(1, (17,), 32),
    Case(2, (3, 5), 8),
    Case(1, (2, 3, 4), 17),
    Case(1, (2, 3, 2), 6, (("states", 3), ("conv_width", 2), ("expand", 1))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_and_gradients_match_the_float64_oracle(case):
    mixer = make_mixer("mamba", case.channels, len(case.size), **dict(case.options))
    x = make_map(case.batch, *case.size, case.channels)

    assert_matches(mixer, x, lambda x, weights: mamba_layer(x.flatten(1, -2), weights).view(x.shape))


def test_parameters_are_those_of_mamba_ssm():
    mixer = MambaMixer(24, spatial_dims=3)

    assert {name: tuple(value.shape) for name, value in mixer.state_dict().items()} == PUBLISHED_SHAPES
    assert list(mixer.state_dict()) == list(PUBLISHED_SHAPES)


def test_initial_values_are_the_published_ones():
    torch.manual_seed(0)
    mixer = MambaMixer(512, spatial_dims=3)
    delta = nn.functional.softplus(mixer.dt_proj.bias.double())

    torch.testing.assert_close(mixer.A_log[7].exp(), torch.arange(1.0, 17.0))
    assert (mixer.D == 1).all()
    assert DELTA_MIN * 0.999 < delta.min() < DELTA_MIN * 1.1
    assert DELTA_MAX * 0.9 < delta.max() < DELTA_MAX * 1.001
    assert abs(delta.log().mean() - 0.5 * torch.tensor(DELTA_MIN * DELTA_MAX).log()) < 0.1  # even in the logarithm
    assert 0.99 * mixer.rank**-0.5 < mixer.dt_proj.weight.abs().max() <= mixer.rank**-0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_the_layer_computes_in_float32(dtype):
    mixer, x = make_mixer("mamba", 16, 2), make_map(1, 4, 5, 16)

    with torch.autocast("cpu", dtype=dtype):
        y = mixer(x)

    assert y.dtype == torch.float32
    torch.testing.assert_close(y, mixer(x), rtol=0, atol=0)


def test_under_float16_autocast_values_beyond_float16_survive():
    mixer, x = make_mixer("mamba", 16, 2), 1e3 * make_map(1, 4, 5, 16)

    with torch.autocast("cpu", dtype=torch.float16):
        y = mixer(x)

    assert y.isfinite().all()
    assert y.abs().max() > torch.finfo(torch.float16).max


# per layer, when the states of the scan are computed again in the backward pass
@pytest.mark.parametrize(
    ("edge", "channels", "millions"), [(128, 32, 843), (64, 64, 202), (32, 128, 50), (16, 256, 12)]
)
def test_saved_elements_are_those_counted_by_hand(edge, channels, millions):
    with torch.device("meta"):
        mixer = MambaMixer(channels, spatial_dims=3)

    assert round(mixer.saved_elements(edge**3) / 1e6) == millions


def test_saved_elements_of_a_bottleneck_are_few():
    with torch.device("meta"):
        assert round(MambaMixer(320, spatial_dims=3).saved_elements(4**3) / 1e6, 2) == 0.26

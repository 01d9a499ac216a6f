"""The mixers without a scan, which show what a scan is good for."""

import pytest
import torch

from tests.mixers.comparing import assert_matches, make_map, make_mixer
from tests.oracles import mixers as oracles
from umamba_seg.errors import UsageError
from umamba_seg.mixers import create
from umamba_seg.mixers.place import Place

SIZES = [(5,), (3, 4), (2, 3, 4), (1, 3, 1)]


def parameters(mixer):
    return sum(parameter.numel() for parameter in mixer.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_conv_is_a_dense_convolution(size):
    assert_matches(make_mixer("conv", 6, len(size)), make_map(2, *size, 6), oracles.convolved)


@pytest.mark.parametrize("size", SIZES)
def test_conv_of_given_parameters_goes_through_few_channels(size):
    mixer = make_mixer("conv", 6, len(size), parameters=600)

    assert mixer.between > 0
    assert_matches(mixer, make_map(2, *size, 6), oracles.convolved)


@pytest.mark.parametrize("size", SIZES)
def test_gated_conv_is_the_layer_of_axes_that_sees_nothing(size):
    mixer, x = make_mixer("gated_conv", 6, len(size)), make_map(2, *size, 6)

    assert_matches(mixer, x, lambda x, weights: oracles.gated(x, weights, torch.zeros_like))


def test_gated_conv_is_axes_whose_scan_writes_nothing():
    axes, control, x = make_mixer("axes", 6, 3), make_mixer("gated_conv", 6, 3), make_map(2, 2, 3, 4, 6)
    with torch.no_grad():
        axes.x_proj.weight[len(axes.sets) * axes.rank :] = 0  # B and C
        axes.b_bias.zero_()
    control.load_state_dict({name: axes.state_dict()[name] for name in control.state_dict()})

    torch.testing.assert_close(control(x), axes(x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("width", [3, 7])
def test_large_kernel_is_a_depthwise_convolution_and_a_perceptron(size, width):
    mixer = make_mixer("large_kernel", 6, len(size), width=width)

    assert_matches(mixer, make_map(2, *size, 6), oracles.large_kernel)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [6, 7])
def test_mambaout_convolves_a_share_of_its_channels(size, channels):
    mixer = make_mixer("mambaout", channels, len(size))

    assert_matches(mixer, make_map(2, *size, channels), oracles.mambaout)


@pytest.mark.parametrize("name", ["large_kernel", "mambaout"])
def test_large_kernels_stay_within_thick_slices(name):
    mixer = create(name, 4, spatial_dims=3, place=Place(kernel_size=(1, 3, 3)))

    assert mixer.conv.weight.shape == (4, 1, 1, 7, 7)


@pytest.mark.parametrize("name", ["conv", "gated_conv"])
def test_small_kernels_are_those_of_the_plan(name):
    mixer = create(name, 4, spatial_dims=3, place=Place(kernel_size=(1, 3, 3)))

    assert mixer.conv.weight.shape[2:] == (1, 3, 3)


@pytest.mark.parametrize(
    ("name", "options", "counts"),
    [
        ("mamba", {}, {96: 68_160, 320: 675_200}),
        ("bidirectional", {}, {96: 81_024, 320: 736_000}),
        ("axes", {}, {96: 45_984, 320: 394_976}),
        ("conv", {}, {96: 248_928, 320: 2_765_120}),
        # 3dE + E (27 + 1) + 3E; 2dh + 2h + d (49 + 1) + hd + d in 2D
        ("gated_conv", {}, {96: 30_624, 320: 317_120}),
        ("mambaout", {"spatial_dims": 2}, {96: 79_136, 320: 836_906}),
    ],
)
def test_parameters_are_as_many_as_the_formulas_say(name, options, counts):
    for channels, count in counts.items():
        assert parameters(create(name, channels, **{"spatial_dims": 3, **options})) == count


@pytest.mark.parametrize("channels", [32, 64, 96, 320])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("published", ["mamba", "segmamba", "axes"])
def test_conv_has_the_parameters_of_the_layer_it_stands_in_for_within_half_a_kernel(published, channels, dims):
    wanted = parameters(create(published, channels, spatial_dims=dims))

    control = create("conv", channels, spatial_dims=dims, place=Place(parameters=wanted))

    assert abs(parameters(control) - wanted) <= (channels * (3**dims + 1) + 1) / 2


def test_conv_stays_dense_where_asked():
    place = Place(parameters=1000)
    dense = create("conv", 8, spatial_dims=3)

    for options in ({"match": "width"}, {"parameters": None}):
        assert parameters(create("conv", 8, spatial_dims=3, place=place, **options)) == parameters(dense)


@pytest.mark.parametrize("channels", [32, 96, 320])
@pytest.mark.parametrize("dims", [2, 3])
def test_gated_conv_may_have_the_parameters_of_axes(channels, dims):
    axes = create("axes", channels, spatial_dims=dims)
    control = create("gated_conv", channels, spatial_dims=dims, match="parameters")

    assert parameters(control) == pytest.approx(parameters(axes), rel=0.01)


def test_gated_conv_may_have_the_parameters_of_the_published_layer():
    place = Place(parameters=50_000)

    wide = create("gated_conv", 64, spatial_dims=3, place=place, match="parameters")

    assert parameters(wide) == pytest.approx(50_000, rel=0.01)
    assert create("gated_conv", 64, spatial_dims=3, place=place).inner == 64


@pytest.mark.parametrize("name", ["conv", "gated_conv"])
def test_what_is_not_known_to_match_is_refused(name):
    with pytest.raises(UsageError, match="match must be one of width, parameters"):
        create(name, 4, spatial_dims=3, match="depth")

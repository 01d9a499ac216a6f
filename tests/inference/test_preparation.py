"""From images to the grid, against nnU-Net's functions."""

from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

from umamba_seg.bench.made_up_model import MadeUp
from umamba_seg.inference.plans import Configuration
from umamba_seg.inference.preparation import Resampling

spacings = st.tuples(*[st.sampled_from([0.2, 0.5, 1.0, 1.01, 2.0, 3.5, 9.0])] * 3)


def configuration(**options):
    return Configuration(MadeUp(resampling_options=options).plans()["configurations"]["3d_fullres"])


@given(spacings, spacings, st.sampled_from([None, True, False]))
def test_long_voxels_are_kept_apart_as_in_nnunet(current, new, force):
    way = Resampling.of(configuration(force_separate_z=force, order_z=0), "data", (0, 1, 3))
    is_apart, axis = determine_do_sep_z_and_axis(force, current, new)

    assert way.separate(current, new) == ((int(axis), 0) if is_apart else None)


def test_what_is_not_the_usual_function_is_left_to_nnunet():
    assert Resampling.of(configuration(force_separate_z=None, order_z=0), "data", (0, 1, 3)).original is None
    assert Resampling.of(configuration(force_separate_z=None, order_z=3), "data", (0, 1, 3)).original is not None
    assert Resampling.of(configuration(order=2), "data", (0, 1, 3)).original is not None
    assert Resampling.of(configuration(order=3), "probabilities", (0, 1)).original is not None

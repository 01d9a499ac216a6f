"""From images to the grid, against nnU-Net's functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from umamba_seg.bench.made_up_model import MadeUp
from umamba_seg.errors import ModelError
from umamba_seg.inference.plans import Configuration, Labels
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


LABELS = {
    "classes": {"labels": {"background": 0, "a": 1, "b": 2}},
    "ignored": {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
    "regions": {"labels": {"background": 0, "all": [1, 2], "b": 2}, "regions_class_order": [1, 2]},
    "regions, ignored": {
        "labels": {"background": 0, "all": [1, 2, 3], "b": [2, 3], "c": 3, "ignore": 4},
        "regions_class_order": [1, 2, 3],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_counted_as_in_nnunet(name):
    dataset_json = LABELS[name]
    theirs = LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"))

    ours = Labels.of(dataset_json)

    for what in ("num_segmentation_heads", "has_regions", "foreground_labels", "regions_class_order"):
        assert getattr(ours, what) == getattr(theirs, what)


@pytest.mark.parametrize(
    ("dataset_json", "words"),
    [
        ({"labels": {"a": 1}}, "background"),
        ({"labels": {"background": 1, "a": 0}}, "background"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "ignored"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions_class_order"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1]}, "regions_class_order"),
    ],
)
def test_labels_that_make_no_sense_are_told(dataset_json, words):
    with pytest.raises(ModelError, match=words):
        Labels.of(dataset_json)

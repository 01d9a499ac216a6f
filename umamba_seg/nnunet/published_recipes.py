"""Plans of published models whose weights come without any: how images were prepared for them, in nnU-Net's words."""

from collections.abc import Callable
from typing import Any

Recipe = Callable[[], tuple[dict[str, Any], dict[str, Any]]]


def segmamba_brats2023() -> tuple[dict[str, Any], dict[str, Any]]:
    """SegMamba and SegMamba-V2 on the glioma data of BraTS 2023: plans and dataset.json.

    Images are cropped to what is not zero, normed over the whole crop and brought to 1 mm; four classes by softmax,
    from which the regions of the challenge are made: whole tumour is 1, 2 and 3, tumour core 1 and 3.
    """
    channels = ["t2w", "t2f", "t1n", "t1c"]
    dataset_json = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": {"background": 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 3},
        "numTraining": 1251,
        "file_ending": ".nii.gz",
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [128, 128, 128],
        "median_image_size_in_voxels": [140.0, 171.0, 137.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * len(channels),
        "use_mask_for_norm": [False] * len(channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": _resampling(is_seg=False, order=3),
        "resampling_fn_seg_kwargs": _resampling(is_seg=True, order=1),
        "resampling_fn_probabilities_kwargs": _resampling(is_seg=False, order=1),
        "batch_dice": False,
        # SegMamba's own architecture takes the place of this one
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    plans = {
        "dataset_name": "Dataset137_BraTS2023",
        "plans_name": "segmambaPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [140, 171, 137],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "none",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
    }
    return plans, dataset_json


def _resampling(*, is_seg: bool, order: int) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


RECIPES: dict[str, Recipe] = {"segmamba-brats2023": segmamba_brats2023}

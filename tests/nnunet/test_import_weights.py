"""Weights of others become model folders that nnU-Net's own predictor loads, and compute what they computed before."""

import copy
import json
import os

import numpy as np
import pytest
import torch

from tests.networks import recorded
from umamba_seg.errors import ModelError, UsageError
from umamba_seg.networks import create
from umamba_seg.networks.weights import recognise
from umamba_seg.nnunet.import_weights import import_weights

CASES = ["umamba_bot_2d_even", "umamba_enc_3d_iso", "umamba_gen1_bot_2d", "umamba_gen1_enc_2d"]


def old_plans(record):
    """Plans as nnU-Net 2.2 wrote them, the version that all forks are of."""
    config, dims = record["config"], len(record["config"]["configuration"]["patch_size"])
    configuration = {
        **config["configuration"],
        "UNet_class_name": "PlainConvUNet",
        "num_pool_per_axis": [3] * dims,
        "data_identifier": "nnUNetPlans_any",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "spacing": [1.0] * dims,
        "normalization_schemes": ["ZScoreNormalization"] * config["in_channels"],
        "use_mask_for_norm": [False] * config["in_channels"],
        "batch_dice": True,
    }
    return {
        "dataset_name": "Dataset001_Any",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"theirs": {"batch_dice": False}, "any": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
    }


def dataset_json(record):
    classes = record["config"]["num_classes"]
    return {
        "channel_names": {str(i): f"channel {i}" for i in range(record["config"]["in_channels"])},
        "labels": {"background": 0, **{f"organ {i}": i for i in range(1, classes)}},
        "file_ending": ".nii.gz",
    }


def checkpoint(record):
    """A checkpoint as a fork of nnU-Net writes it, with the numbers of a log."""
    return {
        "network_weights": {f"module.{name}": value for name, value in record["state_dict"].items()},
        "logging": {"train_losses": [np.float32(0.5), np.float64(0.25)], "epoch": np.int64(2)},
        "_best_ema": np.float32(0.5),
        "current_epoch": 2,
        "trainer_name": "nnUNetTrainerUMambaEnc",
        "init_args": {
            "plans": old_plans(record),
            "configuration": "any",
            "fold": "all",
            "dataset_json": dataset_json(record),
            "unpack_dataset": True,
            "device": torch.device("cuda"),
        },
        "inference_allowed_mirroring_axes": (0, 1),
    }


@pytest.fixture(params=CASES)
def record(request):
    return recorded.load(request.param)


@pytest.fixture
def one():
    return recorded.load(CASES[0])


def saved(content, tmp_path, name="weights.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def loaded_by_the_host(folder, fold):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
    return predictor


def test_a_forks_checkpoint_becomes_a_model_of_the_unforked_host(record, tmp_path):
    before = copy.deepcopy(record["config"])

    result = import_weights(saved(checkpoint(record), tmp_path), tmp_path / "model")

    predictor = loaded_by_the_host(tmp_path / "model", "all")
    assert result.network == record["family"]
    assert record["config"] == before
    assert result.parameters == record["n_parameters"]
    assert predictor.allowed_mirroring_axes == (0, 1)
    with torch.no_grad():
        recorded.assert_outputs([predictor.network(record["input"])], [record["output_no_ds"]], record)


def test_weights_alone_need_the_plans_and_the_data_set_they_were_trained_with(one, tmp_path):
    weights = saved(one["state_dict"], tmp_path)
    (tmp_path / "plans.json").write_text(json.dumps(old_plans(one)))
    (tmp_path / "dataset.json").write_text(json.dumps(dataset_json(one)))

    with pytest.raises(UsageError, match="weights alone") as caught:
        import_weights(weights, tmp_path / "model")
    assert "--plans and --dataset-json" in str(caught.value)
    files = {"plans": tmp_path / "plans.json", "dataset_json": tmp_path / "dataset.json"}
    with pytest.raises(UsageError, match="say which configuration with -c: theirs, any"):
        import_weights(weights, tmp_path / "model", **files)

    import_weights(weights, tmp_path / "model", **files, configuration="any")

    predictor = loaded_by_the_host(tmp_path / "model", 0)
    with torch.no_grad():
        recorded.assert_outputs([predictor.network(one["input"])], [one["output_no_ds"]], one)


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_code_in_a_file_does_not_run_unless_the_file_is_trusted(one, tmp_path):
    trace = tmp_path / "it ran"
    path = saved({**checkpoint(one), "optimizer_state": Hostile(f"touch '{trace}'")}, tmp_path)

    with pytest.raises(ModelError, match=r"would run code from it.*system") as caught:
        import_weights(path, tmp_path / "model")
    assert "--trust" in str(caught.value)
    assert not trace.exists()
    assert not (tmp_path / "model").exists()

    import_weights(path, tmp_path / "model", is_trusted=True)

    assert trace.exists()


def test_weights_of_another_network_are_refused_by_their_names(tmp_path):
    path = saved({"features.0.weight": torch.ones(1), "classifier.bias": torch.ones(1)}, tmp_path)

    with pytest.raises(ModelError, match=r"of no network known here.*features.0.weight, classifier.bias"):
        import_weights(path, tmp_path / "model")


def test_a_missing_weight_is_named_and_nothing_is_written(one, tmp_path):
    content = checkpoint(one)
    for name in ("module.encoder.stem.0.conv3.bias", "module.decoder.encoder.stem.0.conv3.bias"):
        del content["network_weights"][name]

    with pytest.raises(ModelError, match=r"they lack encoder.stem.0.conv3.bias"):
        import_weights(saved(content, tmp_path), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_data_set_is_told_by_its_classes(one, tmp_path):
    content = checkpoint(one)
    del content["init_args"]["dataset_json"]["labels"]["organ 1"]

    with pytest.raises(ModelError, match=r"the weights have \d channels of the logits, the data set \d"):
        import_weights(saved(content, tmp_path), tmp_path / "model")


def test_a_model_that_is_there_is_not_replaced_unasked(one, tmp_path):
    path = saved(checkpoint(one), tmp_path)
    import_weights(path, tmp_path / "model")

    with pytest.raises(UsageError, match="there is a model already"):
        import_weights(path, tmp_path / "model")
    import_weights(path, tmp_path / "model", overwrite=True)


def test_a_further_fold_joins_its_own_model_and_no_other(one, tmp_path):
    first, second, other = (checkpoint(one) for _ in range(3))
    second["init_args"]["fold"], other["init_args"]["fold"] = 1, 2
    other["init_args"]["plans"]["configurations"]["any"]["spacing"] = [2.0, 2.0]
    import_weights(saved(first, tmp_path), tmp_path / "model")
    plans = (tmp_path / "model" / "plans.json").read_bytes()

    import_weights(saved(second, tmp_path), tmp_path / "model")
    with pytest.raises(UsageError, match=r"plans\.json: there is a model already"):
        import_weights(saved(other, tmp_path), tmp_path / "model")

    assert (tmp_path / "model" / "plans.json").read_bytes() == plans
    assert sorted(path.name for path in (tmp_path / "model").glob("fold_*")) == ["fold_1", "fold_all"]


def test_weights_alone_of_segmamba_become_a_model_by_their_recipe(tmp_path):
    network = create("segmamba", 4, 4, depths=[1] * 4, features=[4, 8, 8, 8], hidden=8, directions=1).eval()
    path = saved({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path, "segmamba.pt")

    result = import_weights(path, tmp_path / "model", recipe="segmamba-brats2023")

    assert result.network == "segmamba"
    x = torch.randn(1, 4, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded_by_the_host(tmp_path / "model", 0).network(x), network(x))


@pytest.mark.parametrize("name", ["convInit.0.conv.weight", "conv_final.2.1.conv.bias"])
def test_a_weight_that_lightm_unet_lacks_is_named(name, tmp_path):
    weights = create("lightm_unet", 1, 2, init_filters=8).state_dict()
    del weights[name]

    with pytest.raises(ModelError, match=f"they lack {name}"):
        import_weights(saved(weights, tmp_path), tmp_path / "model", recipe="segmamba-brats2023")


def test_weights_in_2d_are_told_by_their_shapes():
    weights = create("segmamba", 1, 2, dims=2, depths=[1] * 4, features=[4, 8, 8, 8], hidden=8).state_dict()

    assert recognise(weights).dims == 2


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_told_in_a_sentence(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)

    with pytest.raises(ModelError):
        import_weights(path, tmp_path / "model")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        import_weights(tmp_path / "no.pth", tmp_path / "model")

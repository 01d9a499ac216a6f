"""A plan that networks are compared by: nnU-Net's usual layers, as many features as it takes, one image channel."""

from collections.abc import Sequence
from typing import Any

from umamba_seg.networks.architecture import architecture
from umamba_seg.networks.registry import NetworkRecord

PATCHES = {2: (512, 512), 3: (128, 128, 128)}
STAGES = {2: 8, 3: 6}
MOST_FEATURES = {2: 512, 3: 320}
INPUT_CHANNELS, NUM_CLASSES = 1, 2


def reference_architecture(
    record: NetworkRecord, dims: int, *, patch_size: Sequence[int] | None = None, mixer: str | None = None
) -> dict[str, Any]:
    """The architecture block of a network for the reference plan, at another patch size if given."""
    n_stages, most = STAGES[dims], MOST_FEATURES[dims]
    like = {
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(32 * 2**s, most) for s in range(n_stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * n_stages,
            "strides": [[1] * dims, *[[2] * dims] * (n_stages - 1)],
            "n_conv_per_stage": [2] * n_stages,
            "n_conv_per_stage_decoder": [2] * (n_stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return architecture(record, like, patch_size or PATCHES[dims], mixer=mixer, spacing=[1.0] * dims)

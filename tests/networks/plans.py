"""Plans that tests build networks from."""

import json
from typing import Any

from umamba_seg.networks import NETWORKS

# The networks that read the stages of a plan, and the numbers of axes they are built for
PLAN_DRIVEN = [name for name, record in NETWORKS.items() if record.arch_kwargs is None]
KINDS = [(name, dims) for name in PLAN_DRIVEN for dims in NETWORKS[name].dims]


def arch_kwargs(
    strides: list[list[int]],
    *,
    base: int = 8,
    limit: int = 24,
    kernels: list[list[int]] | None = None,
    patch_size: list[int] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The architecture of a plan as nnU-Net writes it, two blocks in every stage."""
    n_stages, dims = len(strides), len(strides[0])
    kwargs = {
        "n_stages": n_stages,
        "features_per_stage": [min(base * 2**s, limit) for s in range(n_stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": kernels or [[3] * dims] * n_stages,
        "strides": strides,
        "n_conv_per_stage": [2] * n_stages,
        "n_conv_per_stage_decoder": [2] * (n_stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **({} if patch_size is None else {"patch_size": patch_size}),
        **changes,
    }
    return json.loads(json.dumps(kwargs))


def tiny(dims: int, **changes: Any) -> dict[str, Any]:
    """A plan of four stages for patches of `TINY_PATCH`; in Enc its deepest maps are mixed over their channels."""
    strides = [[1] * dims, [2] * dims, [2] * dims, [1] + [2] * (dims - 1)]
    return {**arch_kwargs(strides, patch_size=TINY_PATCH[dims]), **changes}


TINY_PATCH = {2: [8, 16], 3: [8, 8, 16]}

# Plans of published data sets: patch, strides behind the first, features at most, input channels, classes
_PUBLISHED = {
    "A": ([40, 224, 192], [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]], 1, 14),
    "B": ([128, 128, 128], [[2, 2, 2]] * 5, 4, 4),
    "C": ([20, 256, 224], [[1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]], 1, 4),
    "D": ([384, 640], [[2, 2]] * 6, 3, 8),
    "E": ([512, 512], [[2, 2]] * 7, 3, 3),
    "F": ([320, 320], [[2, 2]] * 6, 1, 14),
}


def published(plan: str) -> dict[str, Any]:
    """All arguments of a network for one of these plans."""
    patch_size, strides, input_channels, num_classes = _PUBLISHED[plan]
    dims, n_stages = len(patch_size), len(strides) + 1
    first = [1, 3, 3] if plan in "AC" else [3] * dims
    kwargs = arch_kwargs(
        [[1] * dims, *strides],
        base=32,
        limit=320 if dims == 3 else 512,
        kernels=[first, *[[3] * dims] * (n_stages - 1)],
        patch_size=patch_size,
    )
    return {"input_channels": input_channels, "num_classes": num_classes, **kwargs}

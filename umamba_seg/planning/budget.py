"""GPU memory in training, from the elements of feature maps that a network keeps.

Upstream measured how many elements fill the memory of a preset, at batch 2 in 3D and 12 in 2D. Between the presets we
interpolate, so that our plans for 8, 24 and 40 GB have the same budget as ResEnc M, L and XL. Nobody has measured our
networks on a GPU yet, so what follows from it is called an estimate; `--probe` measures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

REFERENCE_BATCH = {2: 12, 3: 2}


@dataclass(frozen=True, slots=True)
class Budget:
    """How many elements fill how many GB.

    Args:
        elements: By the number of axes, for each preset its elements at the reference batch.
    """

    elements: Mapping[int, Mapping[float, float]]

    def elements_for(self, gb: float, dims: int) -> float:
        """Elements of one sample that fill so much memory at the reference batch."""
        return _along(self.elements[dims], gb)

    def gb_for(self, elements: float, batch: int, dims: int) -> float:
        """Memory that a batch of samples with so many elements needs."""
        curve = {known: gb for gb, known in self.elements[dims].items()}
        return _along(curve, elements * batch / REFERENCE_BATCH[dims])


RESIDUAL = Budget(
    {2: {8.0: 135e6, 24.0: 380e6, 40.0: 560e6}, 3: {8.0: 680e6, 24.0: 2.1e9, 40.0: 3.6e9}},
)
PLAIN = Budget({2: {8.0: 85e6}, 3: {8.0: 560e6}})


def _along(curve: Mapping[float, float], x: float) -> float:
    """The curve's value at x: straight between its points and from the origin, in proportion beyond the last."""
    x0, y0 = 0.0, 0.0
    for x1, y1 in curve.items():
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
        x0, y0 = x1, y1
    return y0 * x / x0

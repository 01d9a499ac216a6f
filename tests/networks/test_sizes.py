import pytest

from umamba_seg.errors import UsageError
from umamba_seg.networks.sizes import check_divisible, nearest, text


def test_a_size_is_written_with_crosses():
    assert text((32, 64, 8)) == "32×64×8"


@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_multiples_are_accepted(size):
    check_divisible(size, (8, 8))


@pytest.mark.parametrize(
    ("size", "hint"),
    [((12, 8), "use 8×8 or 16×8"), ((3, 8), "use 8×8"), ((0, 8), "use 8×8"), ((12, 20), "use 8×16 or 16×24")],
)
def test_a_size_that_does_not_fit_is_answered_with_its_neighbours(size, hint):
    with pytest.raises(UsageError) as caught:
        check_divisible(size, (8, 8))
    assert caught.value.how == (hint,)


@pytest.mark.parametrize(
    ("size", "fits", "expected"),
    [
        ((16, 16), lambda size: True, (16, 16)),
        ((20, 16), lambda size: True, (24, 16)),
        ((16, 16), lambda size: size[0] > 40, (48, 16)),
        ((16, 16), lambda size: size[0] * size[1] // 64 % 3 == 0, (16, 24)),
        ((16, 16), lambda size: False, None),
    ],
)
def test_the_nearest_size_that_fits_is_found(size, fits, expected):
    assert nearest(size, (8, 8), fits) == expected

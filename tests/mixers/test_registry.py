import subprocess
import sys

import pytest

from umamba_seg.errors import UsageError
from umamba_seg.mixers import MIXERS, create
from umamba_seg.mixers.place import Place


def test_importing_the_registry_imports_no_torch():
    code = "import sys, umamba_seg.mixers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_every_mixer_is_built_by_name(name, spatial_dims):
    mixer = create(name, 8, spatial_dims=spatial_dims)

    assert (mixer is None) == (name == "none")


def test_none_takes_the_options_of_the_mixer_it_stands_in_for():
    assert create("none", 8, spatial_dims=3, states=4) is None


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match="no mixer 'manba'") as caught:
        create("manba", 8, spatial_dims=3)
    assert caught.value.how[0].startswith("did you mean mamba, ")


def test_an_unknown_option_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match=r"'mamba' has no option d_state; it has conv_width, expand, states"):
        create("mamba", 8, spatial_dims=3, d_state=16)


def test_a_mixer_gets_the_facts_of_its_place_that_it_asks_for(monkeypatch):
    monkeypatch.setitem(MIXERS, "recording", f"{__name__}:Recording")
    place = Place(kernel_size=(1, 3, 3), spacing=(2.5, 1.0, 1.0))

    assert create("recording", 8, spatial_dims=3, place=place).spacing == (2.5, 1.0, 1.0)
    assert create("recording", 8, spatial_dims=3, place=place, spacing=None).spacing is None
    assert create("mamba", 8, spatial_dims=3, place=place) is not None


class Recording:
    def __init__(self, channels, *, spatial_dims, spacing=(1.0, 1.0, 1.0)):
        self.spacing = spacing

import pydoc
import subprocess
import sys

import pytest
import torch

from tests.networks.plans import tiny
from umamba_seg import networks
from umamba_seg.errors import UsageError
from umamba_seg.networks import NETWORKS, UMambaEnc, create, find


def test_importing_the_networks_imports_no_torch():
    code = "import sys, umamba_seg.networks as n; n.find('umamba_bot'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_class_paths_resolve_as_nnunet_resolves_them(name):
    record = find(name)
    package, _, attribute = record.class_path.rpartition(".")

    assert record.name == name
    assert package == "umamba_seg.networks"
    assert pydoc.locate(record.class_path) is getattr(networks, attribute)
    assert attribute in dir(networks)


def test_frozen_paths_are_there():
    assert {record.class_path for record in NETWORKS.values()} == {
        "umamba_seg.networks.UMambaBot",
        "umamba_seg.networks.UMambaEnc",
        "umamba_seg.networks.SegMamba",
        "umamba_seg.networks.SegMambaV2",
        "umamba_seg.networks.LightMUNet",
    }


@pytest.mark.parametrize(("name", "generation"), [("umamba_enc", 2), ("umamba_gen1_enc", 1)])
def test_create_builds_what_the_name_stands_for_with_its_initial_values(name, generation):
    torch.manual_seed(0)
    made = create(name, 2, 3, True, **tiny(2))
    torch.manual_seed(0)
    built = UMambaEnc(2, 3, True, **tiny(2), generation=generation)
    built.apply(built.initialize)

    assert made.decoder.deep_supervision
    assert list(made.state_dict()) == list(built.state_dict())
    torch.testing.assert_close(dict(made.state_dict()), dict(built.state_dict()), rtol=0, atol=0)


def test_create_takes_the_arguments_of_a_plan_for_this_network():
    assert create("umamba_gen1_bot", 2, 3, **tiny(2), generation=1).ln is not None


def test_arguments_that_contradict_the_name_are_refused():
    with pytest.raises(UsageError, match="umamba_gen1_bot stands for generation=1, got generation=2"):
        create("umamba_gen1_bot", 2, 3, **tiny(2), generation=2)


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match="no network 'umamba_boot'") as caught:
        find("umamba_boot")
    assert "umamba_bot" in caught.value.how[0]


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'UMambaTop'"):
        networks.UMambaTop  # noqa: B018

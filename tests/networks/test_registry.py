import pydoc
import subprocess
import sys

import pytest

from umamba_seg import networks
from umamba_seg.errors import UsageError
from umamba_seg.networks import NETWORKS, find


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
    }


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match="no network 'umamba_boot'") as caught:
        find("umamba_boot")
    assert "umamba_bot" in caught.value.how[0]


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'UMambaTop'"):
        networks.UMambaTop  # noqa: B018

"""Names of plans: network, mixer and memory, so that no plans overwrite those of another budget."""

import re

from umamba_seg.errors import UsageError
from umamba_seg.networks.registry import NetworkRecord

NO_MAMBA, MATCHED = "none", "conv"
TWINS = (NO_MAMBA, MATCHED)
_WORDS = {NO_MAMBA: "NoMamba", MATCHED: "Matched"}
_PARTS = re.compile(r"(?P<stem>.*?)(?P<memory>\d+(\.\d+)?G)?(Plans)?")


def default_plans_name(network: NetworkRecord, mixer: str, vram_gb: float) -> str:
    """`umambaEnc8GPlans`, `umambaEncNoMamba8GPlans`, `umambaEncAxes24GPlans`, `umambaSegmambaV2_8GPlans`."""
    stem = _stem(network, mixer)
    return f"{stem}{'_' if stem[-1].isdigit() else ''}{vram_gb:g}GPlans"


def swapped_plans_name(network: NetworkRecord, mixer: str, source: str) -> str:
    """The name of `source` with another network in it: `umambaEncFromNnUNetResEncUNetLPlans`."""
    return f"{_stem(network, mixer)}From{source[:1].upper()}{source[1:].removesuffix('Plans')}Plans"


def twin_plans_name(plans_name: str, mixer: str) -> str:
    """The name of a twin, `umambaEncMatched8GPlans` for `umambaEnc8GPlans`."""
    parts = _PARTS.fullmatch(plans_name)
    assert parts is not None  # it matches any text
    return f"{parts['stem'].removesuffix('_')}{_WORDS[mixer]}{parts['memory'] or ''}Plans"


def check_plans_name(name: str) -> None:
    """Accept what can be a part of nnU-Net's folder names, which separate trainer, plans and configuration by `__`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name) or "__" in name:
        what = f"plans are named by letters, digits and single _ . + -, a letter or digit first; got {name!r}"
        raise UsageError(what, where="--plans-name", code="bad-plans-name")


def _stem(network: NetworkRecord, mixer: str) -> str:
    part = "" if mixer == network.mixer else _WORDS.get(mixer, _camel(mixer))
    return f"umamba{_camel(network.name.removeprefix('umamba_'))}{part}"


def _camel(words: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in words.split("_"))

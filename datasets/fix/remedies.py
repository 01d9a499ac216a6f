"""Every remedy there is, by the fault that it mends; what `--apply` names is looked up here."""

from collections.abc import Callable, Sequence
from typing import Any

from umamba_seg.datasets.fix import description, geometry, names, voxels
from umamba_seg.datasets.fix.remedy import Choice, Remedy
from umamba_seg.errors import UsageError, unknown


def _parsed(text: str, separator: str, number: Callable[[str], Any], count: int) -> tuple[Any, ...] | None:
    try:
        found = tuple(number(part) for part in text.split(separator))
    except ValueError:
        return None
    return found if len(found) == count else None


def _pair(text: str) -> tuple[int, int] | None:
    found = _parsed(text, "=", int, 2)
    return (found[0], found[1]) if found else None


def _limits(text: str) -> tuple[float, float] | None:
    found = _parsed(text, ",", float, 2)
    return (found[0], found[1]) if found and found[0] < found[1] else None


def _spacing(text: str) -> list[float] | None:
    found = _parsed(text, ",", float, 3)
    return list(found) if found and all(0 < x < float("inf") for x in found) else None


def _number(text: str) -> float | None:
    found = _parsed(text, ",", float, 1)
    return found[0] if found else None


def _colour(text: str) -> int | None:
    return int(text) if text in ("0", "1", "2") else None


REMEDIES = (
    Remedy("folder", "move-up", names.move_up),
    Remedy("json-unreadable", "regenerate", description.regenerate),
    Remedy("json-keys", "convert", description.convert_old, is_safe=True),
    Remedy("json-count", "correct", description.count_cases, is_safe=True),
    Remedy("json-channels", "number", description.number_channels, is_safe=True),
    Remedy("json-reader", "leave-out", description.drop_reader, is_safe=True),
    Remedy("json-labels", "swap", description.turn_labels, is_safe=True),
    Remedy("json-labels", "renumber", description.renumber),
    Remedy("json-ignore", "renumber", description.renumber),
    Remedy("json-regions", "order", description.order_regions),
    Remedy("json-region-order", "reorder", description.larger_regions_first),
    Remedy("ct-name", "rename", description.rename_ct),
    Remedy("channel-extra", "leave-out", names.leave_file_out),
    Remedy("channel-extra", "declare", description.declare_channel),
    Remedy("channel-suffix", "rename", names.rename_suffix, is_safe=True),
    Remedy("label-missing", "leave-out", names.leave_case_out),
    Remedy("label-orphan", "leave-out", names.leave_file_out),
    Remedy("file-ending", "correct", names.correct_ending, is_safe=True),
    Remedy("stray-file", "leave-out", names.leave_file_out),
    Remedy("name-collision", "rename", names.rename_case),
    Remedy("name-awkward", "rename", names.rename_case),
    Remedy("shape-mismatch", "reorient", geometry.reorient, is_safe=True),
    Remedy("shape-mismatch", "resample", geometry.resample_label),
    Remedy("spacing-mismatch", "copy-geometry", geometry.copy_geometry),
    Remedy("origin-mismatch", "copy-geometry", geometry.copy_geometry),
    Remedy("origin-mismatch", "resample", geometry.resample_label),
    Remedy("direction-mismatch", "reorient", geometry.reorient, is_safe=True),
    Remedy("direction-mismatch", "copy-geometry", geometry.copy_geometry),
    Remedy("channel-geometry", "resample", geometry.resample_channel),
    Remedy("nonorthonormal", "resample", geometry.resample_upright),
    Remedy("sform-qform", "sform", geometry.keep_sform),
    Remedy("sform-qform", "qform", geometry.keep_qform),
    Remedy("spacing-invalid", "X,Y,Z", geometry.give_spacing, parse=_spacing),
    Remedy("spacing-outlier", "leave-out", names.leave_case_out),
    Remedy("spacing-outlier", "millimetres", geometry.to_millimetres),
    Remedy("wrong-dimension", "drop", geometry.drop_trailing_axes, is_safe=True),
    Remedy("wrong-dimension", "split", voxels.split_channels),
    Remedy("wrong-dimension", "arg-max", voxels.arg_max),
    Remedy("tiff-spacing", "Z,Y,X", geometry.write_side_car, parse=_spacing),
    Remedy("png-mode", "plain", voxels.plain_picture, is_safe=True),
    Remedy("png-mode", "divide", voxels.divide_257),
    Remedy("colour-volume", "NUMBER", voxels.one_colour, parse=_colour),
    Remedy("colour-volume", "magnitude", voxels.magnitude),
    Remedy("image-nonfinite", "VALUE", voxels.fill_image, parse=_number),
    Remedy("image-empty", "leave-out", names.leave_case_out),
    Remedy("image-overflow", "LOW,HIGH", voxels.clip, parse=_limits),
    Remedy("ct-units", "intercept", voxels.subtract_1024),
    Remedy("ct-units", "NUMBER", voxels.shift_image, parse=_number),
    Remedy("label-nonfinite", "background", voxels.nothing_to_background),
    Remedy("label-nonfinite", "ignore", voxels.nothing_to_ignore),
    Remedy("label-undeclared", "mask", voxels.mask_to_one, is_safe=True),
    Remedy("label-undeclared", "OLD=NEW", voxels.map_value, parse=_pair),
    Remedy("label-noninteger", "noise", voxels.round_noise, is_safe=True),
    Remedy("label-noninteger", "round", voxels.round_all),
    Remedy("label-negative", "unsigned", voxels.unsigned),
    Remedy("label-negative", "OLD=NEW", voxels.map_value, parse=_pair),
    Remedy("duplicate-image", "leave-out", names.leave_doubles_out),
)


def of(code: str) -> list[Remedy]:
    """The remedies of a fault."""
    return [remedy for remedy in REMEDIES if remedy.code == code]


def safe_choices() -> list[Choice]:
    """What is done unasked."""
    return [Choice(remedy) for remedy in REMEDIES if remedy.is_safe]


def choose(words: Sequence[str]) -> list[Choice]:
    """What `--apply` asks for: `CODE` where there is one way, else `CODE:ACTION`, or `CODE:VALUE`."""
    return [_choice(word) for word in words]


def _choice(word: str) -> Choice:
    code, _, action = word.partition(":")
    known = of(code)
    if not known:
        how = ["what is not listed has to be mended by hand"]
        raise unknown("remedy", code, dict.fromkeys(x.code for x in REMEDIES), where=f"--apply {word}", how=how)
    if not action:
        return _only_choice(known, word)
    for remedy in known:
        if remedy.parse is None and remedy.action == action:
            return Choice(remedy)
        if remedy.parse is not None and (value := remedy.parse(action)) is not None:
            return Choice(remedy, value)
    raise UsageError(
        f"{action!r} is none of {', '.join(x.action for x in known)}", where=f"--apply {word}", how=_ways(known),
        code="unknown-action",
    )  # fmt: skip


def _only_choice(known: list[Remedy], word: str) -> Choice:
    plain = [remedy for remedy in known if remedy.parse is None]
    asked = [remedy for remedy in plain if not remedy.is_safe] or plain
    if len(asked) == 1 and not any(remedy.parse for remedy in known):
        return Choice(asked[0])
    what = f"{word} can be mended in several ways" if len(known) > 1 else f"{word} needs a value"
    raise UsageError(what, where=f"--apply {word}", how=_ways(known), code="which-action")


def _ways(known: list[Remedy]) -> list[str]:
    return [f"--apply {remedy.code}:{remedy.action}" for remedy in known if not remedy.is_safe]

import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from umamba_seg.errors import ModelError, ResourceError
from umamba_seg.inference.models import archives
from umamba_seg.inference.models.archives import models_in, size_of, spoken_bytes, unpack

MODEL = "Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__2d"
FILES = ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")


def packed(path: Path, *extra: str | zipfile.ZipInfo, model: str = MODEL) -> Path:
    """A zip with a model, and further members that hold `x`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        for name in FILES:
            archive.writestr(f"{model}/{name}", name)
        for member in extra:
            archive.writestr(member, "x")
    return path


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_what_nnunet_packs_is_unpacked_as_it_was(tmp_path):
    path = packed(tmp_path / "model.zip")
    unpack(path, tmp_path / "out")
    for name in FILES:
        assert (tmp_path / "out" / MODEL / name).read_text() == name


def test_models_are_listed_without_unpacking(tmp_path):
    path = packed(tmp_path / "model.zip", "other/plans.json", "a/b/2/dataset.json", "a/b/2/fold_0/checkpoint_final.pth")
    packed_at_root = packed(tmp_path / "root.zip", model=".")
    assert models_in(path) == [PurePosixPath(MODEL)]
    assert models_in(packed_at_root) == [PurePosixPath()]
    assert size_of(path, PurePosixPath(MODEL)) == sum(map(len, FILES))
    assert everything(tmp_path) == {"model.zip", "root.zip"}


def test_one_of_several_models_is_unpacked_alone(tmp_path):
    path = packed(tmp_path / "model.zip", f"{MODEL}2/plans.json", "readme.txt")
    unpack(path, tmp_path / "out", below=PurePosixPath(MODEL))
    assert {name for name in everything(tmp_path / "out") if "." in name} == {f"{MODEL}/{name}" for name in FILES}


def a_link(target: str = "/etc/passwd") -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{MODEL}/link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def a_locked_file() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(f"{MODEL}/locked")
    member.flag_bits |= 1
    return member


HOSTILE = {
    "../escaped": "leads out",
    f"{MODEL}/../../../escaped": "leads out",
    "..\\escaped": "leads out",
    "a/.. /escaped": "leads out",
    "/tmp/umamba_escaped": "absolute",
    "//server/share/escaped": "absolute",
    "\\escaped": "absolute",
    "C:/escaped": "drive",
    "C:escaped": "drive",
    f"{MODEL}/plans.json:stream": "drive",
    f"{MODEL}/bell\a": "all systems",
    "a" * 256: "too long",
    "a/" * 600 + "b": "too long",
    f"{MODEL}/plans.json": "twice",
    f"{MODEL}//fold_0/./../fold_0/checkpoint_final.pth": "leads out",
    f"{MODEL}/fold_0//checkpoint_final.pth": "twice",
    f"{MODEL}/PLANS.json": "one name",
    f"{MODEL}/plans.json/inside": "both a file and a folder",
}


@pytest.mark.parametrize(("name", "reason"), HOSTILE.items())
def test_a_zip_with_a_hostile_name_is_refused_whole(tmp_path, name, reason):
    assert_refused(tmp_path, name, reason)


def test_a_link_is_refused(tmp_path):
    assert_refused(tmp_path, a_link(), "link")


def test_a_folder_outside_is_refused(tmp_path):
    assert_refused(tmp_path, "../escaped/", "leads out")


def assert_refused(tmp_path: Path, member: str | zipfile.ZipInfo, reason: str) -> None:
    inside = tmp_path / "a" / "b" / "c" / "d"
    inside.mkdir(parents=True)
    path = packed(tmp_path / "model.zip", member)
    before = everything(tmp_path)
    for attempt in attempts(path, inside / "out"):
        with pytest.raises(ModelError, match=reason) as caught:
            attempt()
        assert (caught.value.code, caught.value.exit_code) == ("unsafe-zip", 7)
        assert len(str(caught.value.what)) < 250
    assert everything(tmp_path) == before
    assert not Path("/tmp/umamba_escaped").exists()


def attempts(path: Path, target: Path) -> list[Callable[[], object]]:
    return [
        lambda: models_in(path),
        lambda: unpack(path, target),
        lambda: unpack(path, target, below=PurePosixPath(MODEL)),
    ]


def changed(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_a_password_and_other_ways_of_packing_are_told(tmp_path):
    path = packed(tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("more", "x")
    with pytest.raises(ModelError, match="method 12"):
        models_in(path)

    path = packed(tmp_path / "locked.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flags in the zip's directory
    path.write_bytes(content)
    with pytest.raises(ModelError, match="password"):
        models_in(path)


def test_absurd_inflation_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(3):
            archive.writestr(f"{MODEL}/{index}.nii", bytes(100_000_000))
    with pytest.raises(ModelError, match=r"would become 300 MB, as no model does") as caught:
        unpack(path, tmp_path / "out")
    assert caught.value.code == "unsafe-zip"
    assert not (tmp_path / "out").exists()


def test_a_zip_that_claims_less_than_it_holds_writes_no_more_than_it_claims(tmp_path, monkeypatch):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1_000_000))
    changed(path, (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    written = []
    monkeypatch.setattr(archives.shutil, "copyfileobj", lambda source, *_: written.append(source.read()))
    with pytest.raises(ModelError, match="CRC") as caught:
        unpack(path, tmp_path / "out")
    assert caught.value.code == "bad-zip"
    assert sum(map(len, written)) <= 10
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_the_disk_is_refused(tmp_path, monkeypatch):
    path = packed(tmp_path / "model.zip")
    room = archives.shutil._ntuple_diskusage(100, 90, 10)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda place: room)
    with pytest.raises(ResourceError, match=r"needs 49 bytes, and 10 bytes are free") as caught:
        unpack(path, tmp_path / "out")
    assert (caught.value.code, caught.value.exit_code) == ("no-room", 6)
    assert not (tmp_path / "out").exists()


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    with pytest.raises(ModelError, match="no model has more than 2"):
        models_in(packed(tmp_path / "model.zip"))


def test_no_damage_is_taken_for_a_fault_of_ours_and_none_leaves_anything(tmp_path):
    whole = packed(tmp_path / "model.zip").read_bytes()
    broken = tmp_path / "broken.zip"
    refused = 0
    for place in range(len(whole)):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            broken.write_bytes(content)
            try:
                unpack(broken, tmp_path / f"out{place}{len(content)}")
            except ModelError:
                refused += 1
                assert not (tmp_path / f"out{place}{len(content)}").exists()
    assert refused > len(whole)  # every cut, and most changes; times and sizes of no use may change


def test_a_file_that_is_no_zip_is_told(tmp_path):
    path = tmp_path / "model.zip"
    path.write_text("nothing")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        models_in(path)
    assert (caught.value.code, caught.value.where) == ("bad-zip", str(path))


def test_sizes_are_spoken():
    assert [spoken_bytes(n) for n in (0, 999, 1000, 250_000_000, 3_210_000_000, 10**16)] == [
        "0 bytes", "999 bytes", "1 kB", "250 MB", "3.21 GB", "1e+04 TB",
    ]  # fmt: skip

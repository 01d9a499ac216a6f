"""A zip is unpacked where it should be, or not at all."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from umamba_seg.datasets.archive import folder_of, opened, unpacked
from umamba_seg.errors import DataError, ResourceError


def zipped(folder: Path, entries: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    file = folder / "data.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, content)
    return file


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix
    info.external_attr = (kind | 0o777) << 16
    return info


SOUND = {"Dataset001_X/dataset.json": b"{}", "Dataset001_X/imagesTr/a_0000.nii": b"scan"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_the_data_set_is_there_inside_the_block_and_gone_after_it(tmp_path):
    extra = {"__MACOSX/Dataset001_X/._dataset.json": b"x", "Dataset001_X/imagesTr/._a_0000.nii": b"x"}
    file = zipped(tmp_path, SOUND | extra)

    with unpacked(file, tmp_path / "place") as inside:
        assert inside == tmp_path / "place/Dataset001_X"
        assert files(inside) == {"dataset.json", "imagesTr/a_0000.nii"}
        assert (inside / "imagesTr/a_0000.nii").read_bytes() == b"scan"

    assert files(tmp_path) == {"data.zip"}


def test_what_is_moved_out_stays(tmp_path):
    with unpacked(zipped(tmp_path, SOUND), tmp_path / "place") as inside:
        inside.rename(tmp_path / "kept")

    assert "kept/dataset.json" in files(tmp_path)
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    ("name", "folder"), [("dataset.json", "."), ("a/dataset.json", "a"), ("a/b/dataset.json", "a/b")]
)
def test_the_data_set_may_lie_in_folders(tmp_path, name, folder):
    with opened(zipped(tmp_path, {name: b"{}"})) as archive:
        assert folder_of(archive, tmp_path) == folder


HOSTILE = {
    "up": [("../evil", b"x")],
    "up in the midst": [("Dataset001_X/../../evil", b"x")],
    "absolute": [("/tmp/evil", b"x")],
    "drive": [("C:/evil", b"x")],
    "backslash": [("a\\..\\..\\evil", b"x")],
    "link": [(link("Dataset001_X/imagesTr/x"), b"/etc/passwd")],
    "link to a folder": [(link("Dataset001_X/labelsTr"), b"/tmp"), ("Dataset001_X/labelsTr/x", b"x")],
    "device": [(link("Dataset001_X/pipe", stat.S_IFIFO), b"")],
    "twice": [("Dataset001_X/A", b"x"), ("Dataset001_X/a", b"x")],
    "file and folder": [("Dataset001_X/a", b"x"), ("Dataset001_X/a/b", b"x")],
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(tmp_path, fault):
    file = zipped(tmp_path, [*SOUND.items(), *HOSTILE[fault]])

    with pytest.raises(DataError, match="nothing was written"), unpacked(file, tmp_path / "place"):
        raise AssertionError("the block is not entered")

    assert files(tmp_path) == {"data.zip"}


def test_damaged_encrypted_empty_and_doubled_archives_are_told(tmp_path):
    sound = zipped(tmp_path, SOUND).read_bytes()
    file = tmp_path / "data.zip"

    def told(content: bytes, message: str) -> None:
        file.write_bytes(content)
        with pytest.raises(DataError, match=message), unpacked(file, tmp_path / "place"):
            pass
        assert not (tmp_path / "place").exists()

    told(sound[:-30], "no sound zip")
    told(b"no zip", "no sound zip")
    told(_spoilt(sound), "cannot be unpacked")
    told(_encrypted(sound), "is encrypted")
    told(zipped(tmp_path, {"readme.txt": b"x"}).read_bytes(), "there is no dataset.json")
    told(zipped(tmp_path, {"a/dataset.json": b"{}", "b/dataset.json": b"{}"}).read_bytes(), "2 data sets: a, b")


def _spoilt(content: bytes) -> bytes:
    """With another checksum for the last file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        crc = archive.infolist()[-1].CRC
    return content.replace(crc.to_bytes(4, "little"), b"\1\2\3\4")


def _encrypted(content: bytes) -> bytes:
    """With the flag that says so."""
    place = content.rindex(b"PK\1\2") + 8
    return content[:place] + b"\1" + content[place + 1 :]


def test_an_archive_larger_than_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3}))

    with pytest.raises(ResourceError, match="free"), unpacked(zipped(tmp_path, SOUND), tmp_path / "place"):
        pass


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="no such file"), opened(tmp_path / "x.zip"):
        pass

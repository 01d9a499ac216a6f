"""DICOM folders: series written here by hand, whose place in the patient and faults are known."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from umamba_seg.errors import DataError, MachineError, UsageError
from umamba_seg.inference.dicom import ONLY_BY_NAME, choose, read_series, series_in, table

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import UID, CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

AXIAL = np.eye(3)
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]).T
SHAPE, SPACING = (5, 6, 7), (0.7, 1.3, 2.5)  # n, y, x; x, y, n: no two alike, so that nothing can be exchanged unseen


def oblique() -> np.ndarray:
    """Columns x, y, n, turned about all three axes."""
    a, b, c = 0.3, -0.5, 0.8
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def numbers(shape=SHAPE, seed=0) -> np.ndarray:
    """Stored numbers, (n, y, x)."""
    return np.random.default_rng(seed).integers(0, 3000, shape).astype("<u2")


def places(axes, spacing=SPACING, slices=SHAPE[0], origin=(-50.0, 20.0, 300.0), lean=(0, 0, 0)) -> np.ndarray:
    """(n, 3): where the first voxel of each slice lies."""
    along = np.arange(slices)[:, None] * spacing[2]
    return np.array(origin) + along * (axes[:, 2] + np.array(lean))


def header(array: np.ndarray, sop=CTImageStorage, syntax=ExplicitVRLittleEndian, **tags) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2", "1.2.3", "CT"
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(array.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.tobytes()
    return dataset


def write(folder: Path, array, positions, axes, *, spacing=SPACING, prefix="slice", **tags) -> list[Path]:
    """One file for each slice, the names in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{prefix}{index:03d}.dcm" for index in range(len(array))]
    for path, numbers_of_slice, position in zip(files, array, positions, strict=True):
        dataset = header(numbers_of_slice, **tags)
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.ImageOrientationPatient = [f"{x:.12g}"[:16] for x in axes.T[:2].ravel()]
        dataset.ImagePositionPatient = [f"{x:.12g}"[:16] for x in position]
        dataset.save_as(path, enforce_file_format=True)
    return files


def functional(**groups) -> Dataset:
    """A functional group of one item in each sequence: `functional(PixelMeasures={"SliceThickness": 2})`."""
    group = Dataset()
    for name, tags in groups.items():
        item = Dataset()
        for tag, value in tags.items():
            setattr(item, tag, value)
        setattr(group, f"{name}Sequence", [item])
    return group


def write_enhanced(path: Path, array, positions, axes, *, slopes=None, frame_tags=None, **tags) -> None:
    """One file for all slices, frames in the order given."""
    dataset = header(array, EnhancedMRImageStorage, Modality="MR", NumberOfFrames=len(array), **tags)
    shared = {
        "PixelMeasures": {"PixelSpacing": [SPACING[1], SPACING[0]], "SliceThickness": 1},
        "PlaneOrientation": {"ImageOrientationPatient": [f"{x:.12g}"[:16] for x in axes.T[:2].ravel()]},
    }
    frames = []
    for index, position in enumerate(positions):
        groups = {"PlanePosition": {"ImagePositionPatient": [f"{x:.12g}"[:16] for x in position]}}
        if slopes is not None:
            scaling = {"RescaleSlope": slopes[index], "RescaleIntercept": index, "RescaleType": "US"}
            groups["PixelValueTransformation"] = scaling
        frames.append(functional(**groups, **(frame_tags[index] if frame_tags else {})))
    dataset.SharedFunctionalGroupsSequence = [functional(**shared)]
    dataset.PerFrameFunctionalGroupsSequence = frames
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def assert_voxels(image, array, positions, axes, spacing=SPACING, value=lambda numbers: numbers) -> None:
    """Each voxel of the known volume, looked up in the image by where it lies in the patient."""
    assert image.GetSize() == array.shape[::-1]
    for k, j, i in np.ndindex(array.shape):
        point = positions[k] + axes[:, 0] * i * spacing[0] + axes[:, 1] * j * spacing[1]
        index = image.TransformPhysicalPointToContinuousIndex(point.tolist())
        assert np.allclose(index, np.round(index), atol=1e-4)
        assert image[[round(x) for x in index]] == pytest.approx(value(float(array[k, j, i])))


def only(folder: Path):
    (series,) = series_in(folder)
    return series


def test_a_comparison_with_a_shifted_volume_fails():
    image = SimpleITK.GetImageFromArray(numbers())
    positions = places(AXIAL, (1, 1, 1), origin=(0, 0, 0))

    assert_voxels(image, numbers(), positions, AXIAL, (1, 1, 1))
    with pytest.raises(AssertionError):
        assert_voxels(image, numbers()[:, ::-1], positions, AXIAL, (1, 1, 1))


@pytest.mark.parametrize(
    "axes", [AXIAL, CORONAL, oblique(), -AXIAL * [1, 1, -1]], ids=["axial", "coronal", "oblique", "turned"]
)
@pytest.mark.parametrize("order", [1, -1])
def test_voxels_lie_where_the_headers_say(tmp_path, axes, order):
    array, positions = numbers(), places(axes)
    write(tmp_path, array[::order], positions[::order], axes, RescaleSlope="1", RescaleIntercept="-1024")

    series = choose(series_in(tmp_path))
    image = read_series(series)

    assert (series.slices, series.size, series.fault) == (5, (7, 6, 5), None)
    assert series.spacing == pytest.approx(SPACING)
    assert image.GetSpacing() == pytest.approx(SPACING)
    assert_voxels(image, array, positions, axes, value=lambda x: x - 1024)


def test_the_order_of_files_is_of_no_account(tmp_path):
    array, positions = numbers(), places(oblique())
    order = [3, 0, 4, 1, 2]
    write(tmp_path, array[order], positions[order], oblique())

    assert_voxels(read_series(only(tmp_path)), array, positions, oblique())


def test_slices_of_different_scaling_keep_their_fractions_and_signs(tmp_path):
    array, positions = numbers(), places(AXIAL)
    for index, slope in enumerate(("1", "0.25", "0.5", "2", "3")):
        one = slice(index, index + 1)
        tags = {"RescaleSlope": slope, "RescaleIntercept": "-7", "Modality": "PT", "prefix": f"{index}"}
        write(tmp_path, array[one], positions[one], AXIAL, **tags)

    image = read_series(only(tmp_path))

    slopes = np.array([1, 0.25, 0.5, 2, 3])[:, None, None]
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), (array * slopes - 7).astype(np.float32))


def test_files_are_known_by_their_content(tmp_path):
    files = write(tmp_path / "deep" / "er", numbers(), places(AXIAL), AXIAL)
    for path in files[:3]:
        path.rename(path.with_suffix(""))
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "._slice000.dcm").write_bytes(b"\0\5\x16\7" * 100)
    (tmp_path / "empty.dcm").touch()
    plan = header(numbers()[0], UID("1.2.840.10008.5.1.4.1.1.481.3"), Modality="RTSTRUCT")
    del plan.Rows, plan.Columns, plan.PixelData
    plan.save_as(tmp_path / "plan.dcm", enforce_file_format=True)

    assert (only(tmp_path).slices, only(tmp_path).fault) == (5, None)


def test_files_without_the_mark_of_dicom_are_read(tmp_path):
    for path in write(tmp_path, numbers(), places(AXIAL), AXIAL):
        dataset = pydicom.dcmread(path)
        plain = Dataset()
        plain.update(dataset)
        path.unlink()
        plain.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)

    assert_voxels(read_series(only(tmp_path)), numbers(), places(AXIAL), AXIAL)


def test_a_folder_without_dicom_says_what_is_there(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x" * 500)

    with pytest.raises(DataError, match=r"no file is a DICOM image; 1 files: \.png"):
        series_in(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        series_in(tmp_path / "none")


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path, numbers(), places(AXIAL), AXIAL)
    monkeypatch.setitem(sys.modules, "pydicom", None)

    with pytest.raises(MachineError, match=r"umamba-seg\[dicom\]"):
        series_in(tmp_path)


def refused(folder: Path, code: str) -> str:
    """The fault of the only volume, which neither the choice nor the reader lets pass."""
    series = only(folder)
    assert series.code == code
    with pytest.raises(DataError) as chosen:
        choose([series])
    assert chosen.value.code == code
    with pytest.raises(DataError) as read:
        read_series(series)
    assert read.value.what == chosen.value.what == series.fault
    return series.fault


def test_missing_slices_are_named_by_the_positions_around_them(tmp_path):
    keep = [0, 1, 3, 4, 7, 8, 9]
    positions = places(AXIAL, slices=10)
    write(tmp_path, numbers((10, 6, 7))[keep], positions[keep], AXIAL)

    assert refused(tmp_path, "missing-slices") == (
        "slices are missing: 1 between 302.5 mm and 307.5 mm, 2 between 310 mm and 317.5 mm, "
        "where the others lie 2.5 mm apart"
    )


def test_doubled_slices_are_named(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL)
    write(tmp_path, numbers()[2:3], places(AXIAL)[2:3], AXIAL, prefix="again")

    fault = refused(tmp_path, "doubled-slices")

    assert fault == "several slices lie at 305 mm: again000.dcm and slice002.dcm"


def test_an_uneven_increment_is_told(tmp_path):
    positions = places(AXIAL)
    positions[3:, 2] += 1.1
    write(tmp_path, numbers(), positions, AXIAL)

    fault = refused(tmp_path, "uneven-slices")

    assert fault == "its slices lie between 2.5 mm and 3.6 mm apart; from 305 mm to 308.6 mm it is 3.6 mm"


def test_slices_beside_the_line_are_told(tmp_path):
    positions = places(AXIAL)
    positions[2, 0] += 5
    write(tmp_path, numbers(), positions, AXIAL)

    assert refused(tmp_path, "uneven-slices") == "its slices lie on no line: that at 305 mm is 5 mm off to a side"


def test_rounded_positions_are_even(tmp_path):
    spacing = (0.7, 0.7, 0.625)
    write(tmp_path, numbers((20, 6, 7)), places(AXIAL, spacing, 20).round(1), AXIAL, spacing=spacing)

    assert only(tmp_path).fault is None


@pytest.mark.parametrize("axes", [AXIAL, oblique()], ids=["axial", "oblique"])
@pytest.mark.parametrize("pixels", [(0, 1), (-2, 0), (1, -1)], ids=str)
def test_a_tilt_of_whole_pixels_is_resampled_voxel_by_voxel(tmp_path, axes, pixels):
    lean = axes[:, 0] * pixels[0] * SPACING[0] / SPACING[2] + axes[:, 1] * pixels[1] * SPACING[1] / SPACING[2]
    array, positions = numbers() + 1, places(axes, lean=lean)
    write(tmp_path, array, positions, axes, RescaleIntercept="-1024", RescaleSlope="1")
    series = only(tmp_path)

    image = read_series(choose([series], resample_tilt=True), resample_tilt=True)

    values = SimpleITK.GetArrayFromImage(image)
    assert image.GetSize() == (7 + 4 * abs(pixels[0]), 6 + 4 * abs(pixels[1]), 5)
    assert np.allclose(np.array(image.GetDirection()).reshape(3, 3), axes)
    found = 0
    for k, j, i in np.ndindex(array.shape):
        point = positions[k] + axes[:, 0] * i * SPACING[0] + axes[:, 1] * j * SPACING[1]
        assert image[image.TransformPhysicalPointToIndex(point.tolist())] == int(array[k, j, i]) - 1024
        found += 1
    is_outside = values == values.min()
    assert np.count_nonzero(is_outside) >= values.size - found


def test_a_tilt_between_pixels_is_interpolated(tmp_path):
    """A volume linear in the patient's space stays so, whatever the grid."""
    lean = AXIAL[:, 1] * np.tan(np.radians(17.0))
    positions = places(AXIAL, lean=lean)
    n, y, x = np.indices(SHAPE)
    points = positions[n] + x[..., None] * AXIAL[:, 0] * SPACING[0] + y[..., None] * AXIAL[:, 1] * SPACING[1]
    field = points @ np.array([2.0, 3.0, -1.0]) + 1000
    write(tmp_path, np.round(field * 50).astype("<u2"), positions, AXIAL, RescaleSlope="0.02", RescaleIntercept="0")

    image = read_series(only(tmp_path), resample_tilt=True)

    inside = 0
    for index in np.ndindex(image.GetSize()):
        point = np.array(image.TransformIndexToPhysicalPoint(index))
        k = index[2]
        at = (point - positions[k]) / [SPACING[0], SPACING[1], 1]
        if 0 <= at[1] <= SHAPE[1] - 1 and -1e-6 <= at[0] <= SHAPE[2] - 1 + 1e-6:
            assert image[index] == pytest.approx(point @ [2.0, 3.0, -1.0] + 1000, abs=0.03)
            inside += 1
    assert inside > 0.7 * np.prod(SHAPE)


def test_a_tilt_is_told_with_its_angle_and_the_way_out(tmp_path):
    write(tmp_path, numbers(), places(AXIAL, lean=AXIAL[:, 1] * np.tan(np.radians(17.0))), AXIAL)

    fault = refused(tmp_path, "gantry-tilt")

    assert fault == "the gantry was tilted by 17.0°: the slices drift sideways by 3.06 mm"
    with pytest.raises(DataError, match="--resample-tilt"):
        read_series(only(tmp_path))


def test_a_tilted_volume_that_is_named_for_another_reason_is_not_read_as_upright(tmp_path):
    positions = places(AXIAL, lean=AXIAL[:, 1] * SPACING[1] / SPACING[2])
    for echo in ("5", "10"):
        write(tmp_path, numbers(), positions, AXIAL, EchoTime=echo, prefix=echo)
    series = series_in(tmp_path)

    assert [one.code for one in series] == ["multi-echo", "multi-echo"]
    with pytest.raises(DataError, match="tilted") as caught:
        read_series(series[0])
    assert caught.value.code == "gantry-tilt"
    with pytest.raises(DataError, match="tilted"):
        choose(series, "1.2.3:1")
    assert read_series(choose(series, "1.2.3:1", resample_tilt=True), resample_tilt=True).GetSize() == (7, 10, 5)


def test_no_faulty_volume_is_offered_by_name(tmp_path):
    keep = [0, 1, 3, 4]
    write(tmp_path, numbers()[keep], places(AXIAL)[keep], AXIAL, prefix="a", SeriesInstanceUID="1.2.8")
    write(tmp_path, numbers()[keep], places(AXIAL)[keep], AXIAL, prefix="b", SeriesInstanceUID="1.2.9")

    with pytest.raises(DataError, match="no volume can be chosen") as caught:
        choose(series_in(tmp_path))
    assert caught.value.how == ()


def test_localisers_and_single_slices_are_left_aside(tmp_path):
    write(tmp_path / "ct", numbers(), places(AXIAL), AXIAL)
    scout = {"SeriesInstanceUID": "1.2.4", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write(tmp_path / "scout", numbers(), places(CORONAL), CORONAL, **scout)
    write(tmp_path / "one", numbers()[:1], places(AXIAL)[:1], AXIAL, SeriesInstanceUID="1.2.5", SliceThickness="4")

    series = series_in(tmp_path)

    assert {one.uid: one.code for one in series} == {"1.2.3": None, "1.2.4": "localiser", "1.2.5": "single-slice"}
    assert choose(series).uid == "1.2.3"
    assert read_series(choose(series, "1.2.5")).GetSpacing() == pytest.approx((0.7, 1.3, 4))
    assert_voxels(read_series(choose(series, "1.2.4")), numbers(), places(CORONAL), CORONAL)


def test_a_localiser_in_the_series_itself_is_left_aside(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL)
    write(tmp_path, numbers()[:1], places(CORONAL)[:1], CORONAL, prefix="scout")

    series = series_in(tmp_path)

    assert sorted((one.slices, one.code) for one in series) == [(1, "single-slice"), (5, None)]
    assert choose(series).slices == choose(series, "1.2.3").slices == 5


def test_echoes_are_volumes_of_their_own(tmp_path):
    first, second = numbers(seed=1), numbers(seed=2)
    write(tmp_path, first, places(AXIAL), AXIAL, prefix="b", EchoTime="80", SeriesDescription="T2")
    write(tmp_path, second, places(AXIAL), AXIAL, prefix="a", EchoTime="9.5", SeriesDescription="T2")

    series = series_in(tmp_path)

    assert [(one.uid, one.description) for one in series] == [
        ("1.2.3:1", "T2 EchoTime 9.5"),
        ("1.2.3:2", "T2 EchoTime 80"),
    ]
    assert {one.code for one in series} == {"multi-echo"}
    with pytest.raises(DataError, match=r"--series 1\.2\.3:1"):
        choose(series)
    assert_voxels(read_series(choose(series, "1.2.3:2")), first, places(AXIAL), AXIAL)


@pytest.mark.parametrize("name", ["AcquisitionNumber", "TemporalPositionIdentifier"])
def test_acquisitions_and_times_are_volumes_of_their_own(tmp_path, name):
    for value in (1, 2, 10):
        array = numbers(seed=value)
        write(tmp_path, array, places(AXIAL), AXIAL, prefix=f"{value}", **{name: value})

    series = series_in(tmp_path)

    assert [one.description for one in series] == [f"{name} {value}" for value in (1, 2, 10)]
    assert {one.code for one in series} == {"several-volumes"}
    assert_voxels(read_series(choose(series, "1.2.3:3")), numbers(seed=10), places(AXIAL), AXIAL)


def test_echoes_of_several_times_are_parted_by_both(tmp_path):
    for echo in ("5", "10"):
        for time in (1, 2):
            tags = {"EchoTime": echo, "TemporalPositionIdentifier": time, "prefix": f"{echo}-{time}-"}
            write(tmp_path, numbers(), places(AXIAL), AXIAL, **tags)

    assert [(one.slices, one.fault is None) for one in series_in(tmp_path)] == [(5, False)] * 4


def test_an_acquisition_for_each_slice_parts_nothing(tmp_path):
    for index in range(5):
        one = slice(index, index + 1)
        write(tmp_path, numbers()[one], places(AXIAL)[one], AXIAL, prefix=f"{index}", AcquisitionNumber=index)

    assert only(tmp_path).fault is None


def test_a_gap_is_told_though_each_slice_is_an_acquisition(tmp_path):
    for index in (0, 1, 3, 4):
        one = slice(index, index + 1)
        write(tmp_path, numbers()[one], places(AXIAL)[one], AXIAL, prefix=f"{index}", AcquisitionNumber=index)

    assert "1 between 302.5 mm and 307.5 mm" in refused(tmp_path, "missing-slices")


def test_a_slice_taken_twice_is_told_though_it_is_an_acquisition_of_its_own(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL, AcquisitionNumber=1)
    write(tmp_path, numbers()[:1], places(AXIAL)[:1], AXIAL, AcquisitionNumber=2, prefix="again")

    refused(tmp_path, "doubled-slices")


def test_orientations_of_one_series_are_volumes_of_their_own(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL)
    write(tmp_path, numbers(seed=1), places(CORONAL), CORONAL, prefix="other")

    series = series_in(tmp_path)

    assert sorted((one.code, one.description) for one in series) == [
        ("mixed-orientation", "axial"),
        ("mixed-orientation", "coronal"),
    ]
    with pytest.raises(DataError, match="no volume can be chosen"):
        choose(series)
    coronal = next(one for one in series if one.description == "coronal")
    assert_voxels(read_series(coronal), numbers(seed=1), places(CORONAL), CORONAL)


def test_coloured_images_are_told(tmp_path):
    array = np.zeros((5, 6, 7, 3), "u1")
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Rows": 6, "Columns": 7}
    write(tmp_path, array, places(AXIAL), AXIAL, **colours, **bits)

    assert refused(tmp_path, "colour") == "its pixels are coloured, RGB"


def test_inverted_shades_are_told(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL, PhotometricInterpretation="MONOCHROME1")

    assert "white to black" in refused(tmp_path, "inverted")


def test_segmentations_are_no_images(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL, Modality="SEG")

    refused(tmp_path, "not-an-image")


@pytest.mark.parametrize("end", ["4.102", "4.201"], ids=["mpeg", "broken-htj2k"])
def test_a_compression_that_cannot_be_read_is_named(tmp_path, end):
    for path in write(tmp_path, numbers(), places(AXIAL), AXIAL):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.{end}")
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 100])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)

    fault = refused(tmp_path, "compressed-syntax")

    assert UID(f"1.2.840.10008.1.2.{end}").name in fault


def test_a_compression_that_can_be_read_is(tmp_path):
    array = np.broadcast_to(np.arange(40, dtype="<u2")[:, None], (5, 40, 50))  # GDCM refuses what RLE makes longer
    for path in write(tmp_path, array, places(AXIAL), AXIAL):
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, encoding_plugin="pydicom")
        dataset.save_as(path)

    assert np.array_equal(SimpleITK.GetArrayFromImage(read_series(only(tmp_path))), array)


def test_a_file_cut_off_in_its_pixels_is_named(tmp_path):
    files = write(tmp_path, numbers(), places(AXIAL), AXIAL)
    files[3].write_bytes(files[3].read_bytes()[:-20])

    assert refused(tmp_path, "cut-off") == "slice003.dcm is cut off: 84 bytes of pixels expected, 64 found"


@pytest.mark.parametrize("length", [200, 400, 500])
def test_a_file_cut_off_in_its_header_is_named(tmp_path, length):
    files = write(tmp_path, numbers(), places(AXIAL), AXIAL)
    files[3].write_bytes(files[3].read_bytes()[:length])

    with pytest.raises(DataError, match=r"slice003\.dcm"):
        choose(series_in(tmp_path))


def test_a_series_without_positions_is_told(tmp_path):
    for path in write(tmp_path, numbers(), places(AXIAL), AXIAL):
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        dataset.save_as(path)

    assert "ImagePositionPatient" in refused(tmp_path, "no-geometry")


def test_frames_of_an_enhanced_file_lie_where_their_groups_say(tmp_path):
    array, positions = numbers(), places(oblique())
    order = [2, 0, 4, 1, 3]
    write_enhanced(tmp_path / "enhanced", array[order], positions[order], oblique())

    series = only(tmp_path)

    assert (series.modality, series.slices, series.size, series.fault) == ("MR", 5, (7, 6, 5), None)
    assert series.spacing == pytest.approx(SPACING)
    assert_voxels(read_series(series), array, positions, oblique())


def test_frames_in_order_are_read_without_a_copy_of_their_own(tmp_path):
    write_enhanced(tmp_path / "enhanced", numbers(), places(CORONAL), CORONAL)

    assert_voxels(read_series(only(tmp_path)), numbers(), places(CORONAL), CORONAL)


def test_each_frame_has_its_own_scaling(tmp_path):
    array, positions = numbers(), places(AXIAL)
    write_enhanced(tmp_path / "enhanced", array[::-1], positions[::-1], AXIAL, slopes=["2", "0.5", "1", "3", "0.25"])

    image = read_series(only(tmp_path))

    slope = np.array([0.25, 3, 1, 0.5, 2])[:, None, None]
    intercept = np.arange(5)[::-1, None, None]
    assert np.allclose(SimpleITK.GetArrayFromImage(image), array * slope + intercept, rtol=1e-6)


def test_enhanced_files_are_checked_as_others_are(tmp_path):
    keep = [0, 1, 3, 4]
    write_enhanced(tmp_path / "enhanced", numbers()[keep], places(AXIAL)[keep], AXIAL)

    assert "1 between 302.5 mm and 307.5 mm" in refused(tmp_path, "missing-slices")


def test_each_enhanced_file_is_a_volume(tmp_path):
    for name in "ab":
        write_enhanced(tmp_path / name, numbers(), places(AXIAL), AXIAL)

    assert [(one.slices, one.code) for one in series_in(tmp_path)] == [(5, "several-volumes")] * 2


def test_echoes_of_an_enhanced_file_are_volumes_of_their_own(tmp_path):
    array = numbers((10, 6, 7))
    echoes = [{"MREcho": {"EffectiveEchoTime": float(echo)}} for echo in (5, 20) for _ in range(5)]
    write_enhanced(tmp_path / "e", array, np.tile(places(AXIAL), (2, 1)), AXIAL, frame_tags=echoes)

    series = series_in(tmp_path)

    assert [(one.code, one.description) for one in series] == [
        ("multi-echo", "EffectiveEchoTime 5.0"),
        ("multi-echo", "EffectiveEchoTime 20.0"),
    ]
    assert_voxels(read_series(series[1]), array[5:], places(AXIAL), AXIAL)


def test_frames_without_positions_are_told(tmp_path):
    dataset = header(numbers(), UID("1.2.840.10008.5.1.4.1.1.7.3"), NumberOfFrames=5)
    dataset.PixelSpacing, dataset.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [0, 0, 0]
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    assert "ImagePositionPatient" in refused(tmp_path, "no-geometry")


def test_the_choice_between_sound_volumes_is_left_to_the_user(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL, SeriesDescription="soft tissue")
    tags = {"SeriesInstanceUID": "1.2.9", "SeriesDescription": "bone", "prefix": "b"}
    write(tmp_path, numbers(), places(AXIAL), AXIAL, **tags)
    series = series_in(tmp_path)

    with pytest.raises(DataError) as caught:
        choose(series)

    assert "2 volumes could be meant" in caught.value.what
    assert table(series) in caught.value.what
    assert "soft tissue" in table(series)
    assert caught.value.how == ("name one: --series 1.2.9",)
    assert choose(series, "1.2.3").description == "soft tissue"


def test_an_unknown_series_is_answered_with_those_there_are(tmp_path):
    write(tmp_path, numbers(), places(AXIAL), AXIAL)

    with pytest.raises(UsageError, match=r"there is no series '9\.9'") as caught:
        choose(series_in(tmp_path), "9.9")
    assert "1.2.3" in str(caught.value)


def test_a_faulty_series_asked_for_by_name_is_refused(tmp_path):
    keep = [0, 1, 3, 4]
    write(tmp_path / "a", numbers()[keep], places(AXIAL)[keep], AXIAL, SeriesInstanceUID="1.2.8")
    write(tmp_path / "b", numbers(), places(AXIAL), AXIAL)
    series = series_in(tmp_path)

    assert choose(series).uid == "1.2.3"
    assert "missing-slices" not in ONLY_BY_NAME
    with pytest.raises(DataError, match="slices are missing"):
        choose(series, "1.2.8")

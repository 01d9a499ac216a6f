"""A copy is mended, and its source is left as it was, bytes and links."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.datasets.check.test_faults import FAULTS
from tests.datasets.liver import (
    CASES,
    DESCRIPTION,
    affine,
    describe,
    flipped,
    found,
    image,
    image_of,
    label,
    label_of,
    put,
    reimage,
    relabel,
    save,
    sheared,
)  # fmt: skip
from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.fix.run import Fixed, fix, offers
from umamba_seg.errors import DataError, UsageError

NAME = "Dataset112_Liver"


def state(folder: Path) -> dict[str, str]:
    """Every file with its content or where its link leads."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def mend(raw: Path, *apply: str, **options: object) -> tuple[Path, Fixed]:
    before = state(raw)
    target = raw.with_name(NAME)
    done = fix(raw, target, check, apply=apply, **options)
    assert state(raw) == before
    assert not list(raw.parent.glob(".*"))
    return target, done


def codes(done: Fixed) -> set[str]:
    return {finding.code for finding in done.report.findings}


SAFE = {
    "json count", "json swapped", "json channels", "json reader", "ending without dot", "ending of none",
    "channel suffix", "label suffix", "mask of 255",
}  # fmt: skip
CHOICES = {
    "json comma": "json-unreadable:regenerate",
    "json missing": "json-unreadable",
    "json ignore": "json-ignore",
    "json regions": "json-regions:order",
    "json region order": "json-region-order",
    "ct name": "ct-name",
    "nested folder": "folder",
    "channel extra": "channel-extra:leave-out",
    "label missing": "label-missing",
    "label orphan": "label-orphan",
    "apple double": "stray-file",
    "copy": "stray-file:leave-out",
    "awkward name": "name-awkward",
    "collision": "name-collision:rename",
    "spacing": "spacing-mismatch",
    "origin": "origin-mismatch:copy-geometry",
    "direction": "direction-mismatch:copy-geometry",
    "sheared": "nonorthonormal",
    "nan spacing": "spacing-invalid:1,1.5,2",
    "zero spacing": "spacing-invalid:1,1.5,2",
    "spacing outlier": "spacing-outlier:leave-out",
    "complex": "colour-volume:magnitude",
    "nan": "image-nonfinite:0",
    "constant": "image-empty",
    "sentinel": "image-overflow:-1000,1000",
    "wrapped": "image-overflow:-1000,1000",
    "ct units": "ct-units:-1024",
    "label nan": "label-nonfinite:background",
    "interpolated": "label-noninteger:round",
    "same image": "duplicate-image",
}


@pytest.mark.parametrize("fault", sorted(SAFE))
def test_what_loses_nothing_is_done_unasked(raw, fault):
    break_it, (code, *_) = FAULTS[fault]
    break_it(raw)

    target, done = mend(raw)

    assert code not in codes(done)
    assert done.report.findings == check(target).findings
    assert done.report.ok or fault == "json swapped"  # whose labels lack a class
    record = json.loads((target / "fixes.json").read_text())
    assert code in {change["code"] for change in record["changes"]}
    assert record["source"] == raw.name


@pytest.mark.parametrize("fault", CHOICES)
def test_a_choice_is_made_only_when_it_is_named(raw, fault):
    break_it, (code, *_) = FAULTS[fault]
    break_it(raw)

    _, unasked = mend(raw)
    assert code in codes(unasked)
    shutil.rmtree(raw.with_name(NAME), ignore_errors=True)
    target, done = mend(raw, CHOICES[fault])

    assert code not in codes(done), done.changes
    assert done.is_made
    assert done.report.findings == check(target).findings
    assert code in {change.code for change in done.changes}


def test_faults_that_hide_behind_others_are_mended_in_turn(raw):
    describe(raw, numTraining=7, file_ending="nii.gz")
    image_of(raw).rename(raw / "imagesTr/case_3.nii.gz")
    relabel(raw, lambda x: (x > 0).astype(np.uint8) * 255)

    _, done = mend(raw)

    assert {x.code for x in done.changes} == {"file-ending", "channel-suffix", "label-undeclared", "json-count"}
    assert done.report.findings == ()


def test_nnunets_own_check_accepts_the_copy_and_not_the_source(raw):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    describe(raw, numTraining=7)
    relabel(raw, lambda x: (x > 0).astype(np.uint8) * 255, np.eye(4))
    image_of(raw, "case_5").rename(raw / "imagesTr/case_5.nii.gz")
    save(label_of(raw, "case_4"), np.roll(label(3), 1, axis=0).astype(np.float32) + np.float32(1e-4))

    target, _ = mend(raw, "spacing-mismatch")

    with pytest.raises((AssertionError, RuntimeError)):
        verify_dataset_integrity(str(raw), num_processes=1)
    verify_dataset_integrity(str(target), num_processes=1)


def test_what_does_not_change_is_linked_or_copied(raw):
    describe(raw, numTraining=7)
    (raw / "imagesTs").mkdir()
    (raw / "imagesTs/t_0000.nii.gz").write_bytes(b"test")

    target, _ = mend(raw)
    assert image_of(target).resolve() == image_of(raw).resolve()
    assert (target / "imagesTs/t_0000.nii.gz").is_symlink()
    assert not (target / "dataset.json").is_symlink()

    shutil.rmtree(target)
    target, _ = mend(raw, links=False)
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert image_of(target).read_bytes() == image_of(raw).read_bytes()


def test_links_of_the_source_are_followed_and_never_written_through(raw, tmp_path):
    relabel(raw, lambda x: (x > 0).astype(np.uint8) * 255)
    elsewhere = tmp_path / "elsewhere.nii.gz"
    label_of(raw).rename(elsewhere)
    label_of(raw).symlink_to(elsewhere)
    (raw / "imagesTs").mkdir()
    (raw / "imagesTs/gone").symlink_to("nowhere")
    before = elsewhere.read_bytes()

    target, done = mend(raw)

    assert done.report.findings == ()
    assert elsewhere.read_bytes() == before
    assert (target / "imagesTs/gone").is_symlink()


def test_a_dry_run_and_a_sound_data_set_write_nothing(raw):
    target, done = mend(raw)
    assert (done.changes, done.is_made, target.exists()) == ((), False, False)

    describe(raw, numTraining=7)
    target, done = mend(raw, dry_run=True)
    assert [change.code for change in done.changes] == ["json-count"]
    assert not target.exists()


def test_a_stop_in_the_midst_leaves_nothing(raw):
    describe(raw, numTraining=7)

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fix(raw, raw.with_name(NAME), check, report=stop)
    assert [path.name for path in raw.parent.iterdir()] == [raw.name]


def test_what_is_there_is_not_replaced(raw):
    with pytest.raises(UsageError, match="is there"):
        fix(raw, raw, check)


def test_files_that_dataset_json_names_are_not_touched(raw):
    describe(raw, dataset={})

    with pytest.raises(DataError, match="names its files itself"):
        fix(raw, raw.with_name(NAME), check)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("unreadable", "there is no remedy 'unreadable'"),
        ("origin-mismatch", "several ways"),
        ("origin-mismatch:guess", "none of copy-geometry, resample"),
        ("image-nonfinite", "needs a value"),
        ("image-overflow:5,1", "none of LOW,HIGH"),
        ("label-undeclared", "several ways"),
    ],
)
def test_a_choice_that_is_none_is_refused_before_anything_is_read(raw, word, message):
    with pytest.raises(UsageError, match=message):
        fix(raw, raw.with_name(NAME), None, apply=[word])


def test_a_label_stored_in_another_orientation_keeps_every_voxel(raw):
    turned = affine() @ np.array([[0, 0, -1, 7], [1, 0, 0, 0], [0, -1, 0, 9], [0, 0, 0, 1.0]])
    wanted = label(2)
    stored = np.flip(wanted.transpose(1, 2, 0), (1, 2))  # shape 9, 10, 8
    save(label_of(raw), stored, turned)
    assert codes_of(raw) == {"shape-mismatch"}

    target, done = mend(raw)

    assert done.report.findings == ()
    mended = nibabel.load(label_of(target))
    np.testing.assert_array_equal(np.asarray(mended.dataobj), wanted)
    np.testing.assert_allclose(mended.affine, affine())


def test_a_label_turned_around_in_place_is_reoriented_unasked_but_a_wrong_header_is_not(raw):
    around = affine() @ np.array([[-1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    save(label_of(raw), label(2)[::-1], around)
    target, done = mend(raw)
    assert done.report.findings == ()
    np.testing.assert_array_equal(np.asarray(nibabel.load(label_of(target)).dataobj), label(2))

    shutil.rmtree(target)
    relabel(raw, lambda x: x, flipped())
    _, done = mend(raw)
    assert (done.is_made, codes(done)) == (False, {"direction-mismatch"})


def test_copied_geometry_keeps_the_voxels_and_resampling_moves_them(raw):
    relabel(raw, lambda x: x, affine(2.0))  # 2 voxels along x

    target, _ = mend(raw, "origin-mismatch:copy-geometry")
    np.testing.assert_array_equal(np.asarray(nibabel.load(label_of(target)).dataobj), label(2))

    shutil.rmtree(target)
    target, done = mend(raw, "origin-mismatch:resample")
    moved = np.zeros_like(label())
    moved[2:] = label(2)[:-2]
    np.testing.assert_array_equal(np.asarray(nibabel.load(label_of(target)).dataobj), moved)
    assert "origin-mismatch" not in codes(done)


def test_a_coarser_label_is_resampled_but_one_that_lies_elsewhere_is_not(raw):
    fine = np.repeat(label(2), 2, axis=0)
    at = affine()
    at[0, 0] /= 2
    at[0, 3] -= 0.25
    save(label_of(raw), fine, at)
    target, done = mend(raw, "shape-mismatch:resample")
    assert done.report.findings == ()
    np.testing.assert_array_equal(np.asarray(nibabel.load(label_of(target)).dataobj), label(2))

    shutil.rmtree(target)
    relabel(raw, lambda x: x[:-1], affine(50.0))
    _, done = mend(raw, "shape-mismatch:resample")
    assert (done.is_made, codes(done)) == (False, {"shape-mismatch"})


def test_a_sheared_image_keeps_its_place(raw):
    """A bright voxel is found where its sheared grid had it."""
    pixels = image(2) * 0
    pixels[4, 5, 6] = 1000
    pixels[0, 0, 0] = -1000
    save(image_of(raw), pixels, sheared())
    save(label_of(raw), label(2), sheared())

    target, done = mend(raw, "nonorthonormal")

    assert "nonorthonormal" not in codes(done)
    assert "shape-mismatch" not in codes(done)
    mended = nibabel.load(image_of(target))
    brightest = np.unravel_index(np.asarray(mended.dataobj).argmax(), mended.shape)
    far = np.linalg.inv(mended.affine) @ sheared() @ [4, 5, 6, 1] - [*brightest, 1]
    assert np.abs(far).max() < 0.51  # voxels


def test_values_are_mapped_one_by_one_or_left(raw):
    relabel(raw, lambda x: put(put(x, 4), 4) + 5 * (x == 2).astype(np.uint8))  # 4 once, 7 for 2
    (finding,) = check(raw).findings
    assert finding.found.keys() == {4, 7}

    target, done = mend(raw, "label-undeclared:7=2", "label-undeclared:4=1")

    assert done.report.findings == ()
    mended = np.asarray(nibabel.load(label_of(target)).dataobj)
    np.testing.assert_array_equal(mended, put(label(2), 1))


def test_noise_of_rounding_goes_unasked_but_edges_do_not(raw):
    relabel(raw, lambda x: x.astype(np.float32) + np.float32(1e-4))

    target, done = mend(raw)

    assert done.report.findings == ()
    mended = nibabel.load(label_of(target))
    np.testing.assert_array_equal(np.asarray(mended.dataobj), label(2))
    assert mended.get_data_dtype() == np.uint8


def test_negative_values_of_int8_are_what_they_were(raw):
    describe(raw, labels={"background": 0, "liver": 1, "tumour": 2} | {f"class {i}": i for i in range(3, 201)})
    relabel(raw, lambda x: put(x, -56, np.int8))

    target, done = mend(raw, "label-negative:unsigned")

    assert "label-negative" not in codes(done)
    assert np.asarray(nibabel.load(label_of(target)).dataobj)[0, 0, 0] == 200


def test_a_gap_in_the_labels_is_closed_in_all_files(raw):
    describe(raw, labels={"background": 0, "liver": 1, "tumour": 5, "ignore": 9}, numTraining=6)
    for case in CASES:
        old = nibabel.load(label_of(raw, case))
        values = np.asarray(old.dataobj).copy()
        values[values == 2] = 5
        values[0, 0, 0] = 9
        save(label_of(raw, case), values)

    target, done = mend(raw, "json-labels:renumber")

    assert json.loads((target / "dataset.json").read_text())["labels"] == {
        "background": 0, "liver": 1, "tumour": 2, "ignore": 3,
    }  # fmt: skip
    assert done.report.ok, done.report.findings
    assert set(np.unique(np.asarray(nibabel.load(label_of(target)).dataobj))) == {0, 1, 2, 3}


def test_labels_are_not_renumbered_onto_a_value_that_nobody_declared(raw):
    FAULTS["json gap"][0](raw)  # 3 would become 2, which the files hold

    _, done = mend(raw, "json-labels:renumber")

    assert (done.is_made, "json-labels" in codes(done)) == (False, True)


def test_the_format_of_nnunet_1_is_converted(raw):
    old = {
        "name": "Liver", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "tumour"},
        "numTraining": 6, "training": [{"image": "./imagesTr/case_1.nii.gz"}], "test": [],
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(old))

    target, done = mend(raw)

    assert done.report.findings == ()
    assert json.loads((target / "dataset.json").read_text()) == {"name": "Liver"} | DESCRIPTION


def test_one_file_of_another_format_is_stored_as_the_others(raw):
    import SimpleITK

    for case, ending in (("case_2", ".nii"), ("case_3", ".nrrd"), ("case_4", ".NII.GZ")):
        old = image_of(raw, case)
        new = old.with_name(f"{case}_0000{ending}")
        if ending == ".NII.GZ":
            old.rename(new)
        else:
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(old)), str(new))
            old.unlink()

    target, done = mend(raw)

    assert done.report.findings == ()
    for case in ("case_2", "case_3", "case_4"):
        mended = nibabel.load(image_of(target, case))
        seed = CASES.index(case)
        expected = image(seed)
        expected[label(seed) > 0] = 40 + seed
        np.testing.assert_array_equal(np.asarray(mended.dataobj), expected)
        np.testing.assert_allclose(mended.affine, affine(), atol=1e-5)


def test_trailing_axes_go_and_channels_are_split(raw):
    reimage(raw, lambda x: x[..., None])
    relabel(raw, lambda x: x[..., None])
    target, done = mend(raw)
    assert done.report.findings == ()
    assert nibabel.load(image_of(target)).shape == image(2).shape

    shutil.rmtree(target)
    describe(raw, channel_names={"0": "CT", "1": "PET"})
    for seed, case in enumerate(CASES):
        save(image_of(raw, case), np.stack([image(seed), image(seed + 20)], -1))
    relabel(raw, lambda x: np.stack([x == 0, x == 1, x == 2], -1).astype(np.uint8))
    target, done = mend(raw, "wrong-dimension:split", "wrong-dimension:arg-max")
    assert not codes(done) & {"wrong-dimension", "channel-missing"}
    second = nibabel.load(target / "imagesTr/case_3_0001.nii.gz")
    np.testing.assert_array_equal(np.asarray(second.dataobj), image(22))
    np.testing.assert_array_equal(np.asarray(nibabel.load(label_of(target)).dataobj), label(2))


def test_scaled_images_keep_their_values_when_only_the_header_changes(raw):
    scaled = nibabel.Nifti1Image(image(2), affine())
    scaled.header.set_slope_inter(0.5, -100.0)
    scaled.set_sform(affine(), 1)
    scaled.set_qform(affine(3.0), 1)
    nibabel.save(scaled, image_of(raw))
    expected = nibabel.load(image_of(raw)).get_fdata()

    target, done = mend(raw, "sform-qform:sform")

    assert "sform-qform" not in codes(done)
    np.testing.assert_array_equal(nibabel.load(image_of(target)).get_fdata(), expected)


def test_each_finding_is_offered_what_fits(raw):
    relabel(raw, lambda x: (x > 0).astype(np.uint8) * 255, affine(5.0))
    shutil.copy(image_of(raw, "case_1"), image_of(raw, "case_2"))
    label_of(raw, "case_5").write_bytes(b"")

    report = check(raw)
    offered = dict(zip((x.code for x in report.findings), offers(raw, report.findings), strict=True))

    assert offered["unreadable"] is None
    assert offered["label-undeclared"].is_safe
    assert (offered["origin-mismatch"].is_safe, offered["origin-mismatch"].action) == (False, "copy-geometry")
    assert offered["duplicate-image"].action == "leave-out"


def test_findings_are_those_of_the_check_that_is_given(raw):
    FAULTS["origin"][0](raw)

    done = fix(raw, raw.with_name(NAME), partial(check, accept=["origin-mismatch"]))

    assert (done.changes, done.report.findings) == ((), ())


def codes_of(raw: Path) -> set[str]:
    return {code for code, *_ in found(check(raw))}

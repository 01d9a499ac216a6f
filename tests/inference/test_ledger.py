"""What became of every case, and what proves it."""

from umamba_seg.inference.ledger import FILE, Entry, Ledger
from umamba_seg.run_record import sha256


def test_a_case_is_done_only_for_the_same_images_and_method(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.write_text("labels")
    ledger = Ledger(tmp_path)
    ledger.note(Entry("a", "done", target.name, 1.5, images="i", method="m", labels=sha256(target)))

    again = Ledger(tmp_path)

    assert again.is_done("a", target, "i", "m")
    assert not again.is_done("a", target, "other", "m")
    assert not again.is_done("a", target, "i", "other")
    assert not again.is_done("b", target, "i", "m")
    target.write_text("those of somebody else, or of an earlier call, whose replacement was cut off")
    assert not again.is_done("a", target, "i", "m")
    target.unlink()
    assert not again.is_done("a", target, "i", "m")


def test_a_failed_case_is_tried_again_and_its_reason_kept(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.note(Entry("a", "failed", reason='odd, "quoted"\nwords', images="i", method="m"))

    assert Ledger(tmp_path).entries["a"].reason == 'odd, "quoted"\nwords'
    assert not Ledger(tmp_path).is_done("a", tmp_path / "a.nii.gz", "i", "m")


def test_a_table_of_somebody_else_proves_nothing(tmp_path):
    (tmp_path / FILE).write_text("a,b\n1,2\n")

    assert Ledger(tmp_path).entries == {}


def test_parts_have_tables_of_their_own_and_read_each_other(tmp_path):
    target = tmp_path / "a.nii.gz"
    target.touch()
    first = Ledger(tmp_path, "1/2")
    first.note(Entry("a", "done", target.name, images="i", method="m", labels=sha256(target)))
    Ledger(tmp_path, "2/2").note(Entry("b", "failed"))

    assert Ledger(tmp_path).is_done("a", target, "i", "m")
    assert Ledger(tmp_path, "2/2").is_done("a", target, "i", "m")
    assert list(Ledger(tmp_path, "2/2").entries) == ["b"]

import errno
import pickle

import pytest

from umamba_seg import errors
from umamba_seg.errors import DataError, ResourceError, UmambaError
from umamba_seg.files import replacing, told_when_full, write_text

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UmambaError)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_a_worker_process(kind):
    error = kind("what", where="where", how=["one", "two"], code="code")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.what, again.where, again.how, again.code) == ("what", "where", ("one", "two"), "code")


def test_an_error_says_where_what_and_how():
    assert str(DataError("is broken", where="a.nii.gz", how=["mend it"])) == "a.nii.gz: is broken\nmend: mend it"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def fail_half_way():
        with replacing(file) as target:
            target.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_good_write_replaces_the_file(tmp_path):
    write_text(tmp_path / "file", "old")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_as_such(tmp_path, number):
    with pytest.raises(ResourceError) as caught, told_when_full(tmp_path):
        raise OSError(number, "full")
    assert caught.value.exit_code == 6
    assert caught.value.code == "disk-full"


def test_other_faults_of_the_system_pass_through(tmp_path):
    with pytest.raises(PermissionError), told_when_full(tmp_path):
        raise PermissionError(errno.EACCES, "no")

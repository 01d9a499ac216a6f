"""The page opens anywhere, is sound HTML, and says nothing of where the data lie."""

from html.parser import HTMLParser

import pytest

from tests.datasets.check.test_faults import FAULTS
from umamba_seg.datasets.check.page import page, without_paths
from umamba_seg.datasets.check.run import check
from umamba_seg.datasets.findings import Finding, Report

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Sound(HTMLParser):
    """Fails on tags that do not match, and collects what a page fetches or runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attributes)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_every_finding_is_on_the_page_and_nothing_is_fetched(raw):
    for fault in ("truncated", "json count", "label orphan"):
        FAULTS[fault][0](raw)
    report = check(raw)

    sound = Sound(page(report, {"case_3": b"a picture"}))

    assert all(finding.code in sound.words and finding.message in sound.words for finding in report.findings)
    assert sound.sources == ["data:image/png;base64,YSBwaWN0dXJl"]
    assert not sound.tags & {"script", "link", "iframe", "object", "form"}


def test_a_clean_data_set_has_a_page_too(raw):
    sound = Sound(page(check(raw)))

    assert "0 errors, 0 warnings" in sound.words
    assert "table" not in sound.tags


def test_what_a_name_holds_is_text(raw):
    finding = Finding("x", "error", "<script>alert(1)</script>", ("<b>",), ('imagesTr/"<i>.nii',), expected="<u>")

    sound = Sound(page(Report("<h1>", 1, ("<CT>",), {"<liver>": 1}, (finding,))))

    assert not sound.tags & {"script", "b ", "i", "u"}
    assert "<script>alert(1)</script>" in sound.words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the link leads to /home/anna/patients/x.nii.gz, which", "the link leads to x.nii.gz, which"),
        ("['/mnt/a b/x.nii', '/mnt/y.nii']", "['x.nii', 'y.nii']"),
        ("C:\\Users\\anna\\x.nii", "x.nii"),
        ("imagesTr/case_0000.nii.gz and 0/255", "imagesTr/case_0000.nii.gz and 0/255"),
        ("mm/voxel, 1×2/3", "mm/voxel, 1×2/3"),
    ],
)
def test_files_are_named_without_their_folders(text, expected):
    assert without_paths(text) == expected

"""DICOM folders: which volumes lie in one, what is wrong with each, and their voxels where the patient was.

Files are grouped here and not by SimpleITK, whose reader takes gaps and tilts for even slices without a word. Headers
become slices (`slices`), slices become volumes (`stacks`), volumes are looked over (`faults`), described and chosen
from (`series`), and read (`pixels`). A slice is one file, or one frame of a file of many (enhanced multi-frame).

Points are in mm in DICOM's own directions (left, posterior, superior), which are SimpleITK's too. Axes: x along a row,
y along a column, n the normal of the slices, x × y. No axis is ever flipped: slices are put in order along n.
"""

from umamba_seg.inference.dicom.faults import ONLY_BY_NAME
from umamba_seg.inference.dicom.pixels import read_series
from umamba_seg.inference.dicom.series import Series, choose, series_in, table

__all__ = ["ONLY_BY_NAME", "Series", "choose", "read_series", "series_in", "table"]

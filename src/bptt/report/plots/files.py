"""Pictures as files, whole or not at all; the same figure gives the same bytes."""

from pathlib import Path
from typing import Any

from bptt.errors import FileError, unknown
from bptt.report.plots.style import matplotlib_figure
from bptt.storage import replacing

FORMATS = ("svg", "png", "pdf")


def save(picture: Any, path: str | Path, dpi: int = 160) -> None:
    """Write a figure, or the figure of some axes, as .svg, .png or .pdf, whole or not at all.

    Args:
        picture: a matplotlib Figure or Axes.
        path: where to; its ending says which format.
        dpi: dots per inch, of .png.

    Raises:
        UnknownName: another ending.  FileError: the folder is not there, or the disk refuses.
        MissingExtra: matplotlib is not installed.
    """
    kind = picture_format(path)
    figure = picture if isinstance(picture, matplotlib_figure()) else picture.get_figure(root=True)
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "bptt", "svg.fonttype": "path"}), replacing(path) as file:
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {}
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)


def picture_format(path: str | Path) -> str:
    """svg, png or pdf, as the ending says.

    Raises:
        UnknownName: another ending.  FileError: the folder is not there.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise unknown("picture format", kind or str(path), FORMATS)
    if not path.parent.is_dir():
        raise FileError(f"cannot write {path}", got="no such folder", do="Make it first.")
    return kind

"""PASCAL VOC layout: JPEGImages, SegmentationClass, ImageSets; labels from a csv or XML.

Reads VOC 2012 as it comes, and any data set laid out like it. Pixel masks give the image labels only where
`labels: masks` asks for it; `labels: none` is for work that needs no labels.

Source: Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) challenge; SegmentationClassAug
holds the masks of Hariharan et al. 2011 (SBD) where somebody added them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pseudolabel.readers import _layout
from pseudolabel.records import Dataset
from pseudolabel.registry import Parameters, component, parameter


class Voc(Parameters):
    """Where the data set lies and where its labels come from."""

    root: str = parameter(help="folder that holds JPEGImages and ImageSets")
    split: str = parameter("train", help="list in ImageSets/Segmentation, or else in ImageSets/Main")
    labels: str | None = parameter(
        None,
        help="csv | xml | masks | none | a csv in root; null takes labels.csv, or else Annotations",
    )
    classes: str | None = parameter(
        None, help="class list in root, background first; null takes classes.txt, or VOC's twenty"
    )
    empty: Literal["refuse", "background"] = parameter("refuse", help="what an image without labels means")


@component(Voc)
def voc(params: Voc) -> Dataset:
    """Read a list of a data set in VOC layout; a mask is None where there is none.

    Raises:
        DataError: a file, an image or a label is missing or does not fit; place and remedy are named.
    """
    return _layout.read(
        Path(params.root).expanduser(),
        params.split,
        labels=params.labels,
        classes=params.classes,
        empty=params.empty,
    )

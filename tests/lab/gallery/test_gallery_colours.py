"""The colours of verdicts stay apart for readers who lack one kind of cone, in the maps and beside the symbols."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from separatrix.lab.gallery.site import TEMPLATES

# Dichromacy as a projection of linear RGB: F. Vienot, H. Brettel, J. Mollon, Color Res. Appl. 24, 243 (1999). The third
# kind, blindness to blue, is some hundred times rarer and has no such simple form.
SEEN = {
    "all cones": np.eye(3),
    "no red cones": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "no green cones": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}
APART = 30  # in units of CIE 1976; a difference of 2 is just seen side by side
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def map_colours():
    css = (Path(TEMPLATES) / "gallery.css").read_text("utf-8").partition("@media")[0]
    return dict(re.findall(r"--map-(holds|undecided|fails): (#[0-9a-f]{6})", css))


def linear(colour):
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear RGB, white point D65."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(one, other, eyes):
    return np.linalg.norm(lab(np.asarray(SEEN[eyes]) @ linear(one)) - lab(np.asarray(SEEN[eyes]) @ linear(other)))


@pytest.mark.parametrize("eyes", SEEN)
def test_verdicts_differ_in_colour_for_everybody(eyes):
    colours = map_colours()
    assert len(colours) == 3
    for one, other in itertools.combinations(colours.values(), 2):
        assert distance(one, other, eyes) > APART


def test_the_measure_sees_the_classic_mistake():
    green, red = "#1a9641", "#d7191c"
    assert distance(green, red, "all cones") > 100
    assert distance(green, red, "no red cones") < APART
    assert distance(green, red, "no green cones") < APART

"""A synthetic drive past a street, with label maps."""

from fractions import Fraction

import numpy as np
from conftest import street

from sempic import coarse
from sempic.sequence import Packer


def drive(frames=6, height=48, width=64, step=2):
    """Pictures with label maps; each is `step` pixels further along the street."""
    picture, labels = street(height, width + step * frames)
    return [
        (
            np.ascontiguousarray(picture[:, i : i + width]),
            np.ascontiguousarray(labels[:, i : i + width]),
        )
        for i in range(0, step * frames, step)
    ]


def planes(picture, factor=4):
    return coarse.from_rgb(coarse.downscale(picture, factor))


def packer_of(labels, **how):
    """A packer for frames of the size of `labels`, in CamVid, at 10 Hz."""
    height, width = labels.shape
    return Packer(width=width, height=height, rate=Fraction(10), palette=1, **how)


def packed(scenes, keys=(0,), **how):
    """The packed frames of a sequence."""
    packer = packer_of(scenes[0][1], **how)
    return [
        packer.pack(planes(picture), lambda _, found=labels: found, qp=30, key=number in keys)
        for number, (picture, labels) in enumerate(scenes)
    ]

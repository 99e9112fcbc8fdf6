"""A drive past a street that is drawn here, and its label maps."""

from fractions import Fraction

import numpy as np
from conftest import street

from sempic import coarse
from sempic.sequence import Packer


def drive(frames=6, height=48, width=64, step=2):
    """Pictures and label maps, each of the street `step` pixels further on."""
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
    """A packer of frames as large as a map of CamVid's ids, ten a second."""
    height, width = labels.shape
    return Packer(width=width, height=height, rate=Fraction(10), palette=1, **how)


def packed(scenes, keys=(0,), **how):
    """The pieces of a sequence, a frame each."""
    packer = packer_of(scenes[0][1], **how)
    return [
        packer.pack(planes(picture), lambda _, found=labels: found, qp=30, key=number in keys)
        for number, (picture, labels) in enumerate(scenes)
    ]

"""A drive past a street that is drawn here, and what a segmenter would say of it; and videos of
which one sees which frame is which."""

from fractions import Fraction

import av
import numpy as np
from conftest import street

from sempic import coarse
from sempic.sequence import Packer


def drive(frames=6, height=48, width=64, step=2):
    """Pictures and label maps; each shows the street `step` pixels further on."""
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


def numbered(name, count, *, times=None, format=None, codec="libx264", rate=10, **of_stream):
    """A video whose frames say their number by their grey; times: in milliseconds."""
    with av.open(name, "w", format=format) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for key, value in of_stream.items():
            setattr(stream.codec_context, key, value)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8))
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def numbers(source):
    return [round(frame.mean() / 8) for frame in source]

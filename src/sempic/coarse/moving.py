"""Coarse pictures in time: HEVC, each predicted from the last ones. docs/spec/sequence.md §4.

Parameter sets precede key frames, in a short form (`sets`). Pictures have no start codes, and
predicted ones have short slice headers (`slices`). HEVC defines every sample, so decoders have
exactly the pictures that the encoder predicts from. No picture waits for a later one.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sempic import checks, processes
from sempic.bits import Bits
from sempic.coarse import hevc, sets, slices
from sempic.coarse.hevc import CHROMA_QP, START
from sempic.coarse.planes import MAX_SIDE, check_size
from sempic.errors import CorruptStream, ImageError, LimitExceeded, UnsupportedProfile
from sempic.scene import Coarse

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

QP = slices.QP
"""QP of luma; a QP higher by 6 halves the precision."""
_PARAMETERS = range(32, 35)
_KEYS = (19, 20)
_PREDICTED = (0, 1)
_BASE = 30
_OPENING = 32
"""Enough bytes of a slice to hold the place of its picture."""

# The caller sets the QP of each picture, as the offset of a region of interest. x265 then needs
# adaptive quantisation, here of almost no strength, and a constant rate factor, which is a constant
# QP if complexity does not count (qcomp).
_X265 = hevc.X265 | {
    "keyint": -1,
    "scenecut": 0,
    "open-gop": 0,
    "ref": max(sets.REFERENCES),
    "weightp": 1,
    "temporal-mvp": 0,
    "sao": 0,
    "rd": 6,
    "rdoq-level": 2,
    "subme": 5,
    "crf": _BASE,
    "qcomp": "1.0",
    "ipratio": "1.0",
    "cutree": 0,
    "qpstep": 51,
    "aq-mode": 1,
    "aq-strength": "0.01",
    "qg-size": 64,
}


class Encoder:
    """Pictures of one size → payloads and decoded planes."""

    def __init__(self, width: int, height: int, chroma: str = "444") -> None:
        """Raises ImageError for a side beyond MAX_SIDE, and InputError if PyAV lacks x265, which
        its wheels contain."""
        check_size(width, height, ImageError)
        self._size = width, height
        luma, half = (height, width), (-(-height // 2), -(-width // 2))
        self._shapes = {"y": luma} | dict.fromkeys(("cb", "cr"), luma if chroma == "444" else half)
        self._coded = across, down = sets.coded_size(width, height)
        # At least two coding trees each way: with one, x265 predicts from parts of the margins that
        # it leaves uninitialised.
        settings = _X265 | {"min-cu-size": 8, "ctu": hevc.tree(across - 1, down - 1)}
        options = {"preset": "slow", "forced-idr": "1"}
        self._encoder = hevc.encoder(across, down, chroma, CHROMA_QP[chroma], settings, **options)
        processes.keep_at_fork(self)
        self._regions: dict[int, Any] = {}
        self._decoder: Decoder | None = None
        self._count = 0

    @property
    def parameters(self) -> bytes:
        """Parameter sets in the short form; only after the first picture."""
        assert self._decoder is not None
        return self._decoder.parameters

    def encode(self, coarse: Coarse, *, qp: int, key: bool) -> tuple[bytes, Coarse]:
        """The payload of the next picture, and its decoded planes.

        qp: in QP. key: code a key frame; the first picture always is one. Raises ImageError for
        planes of another type, size or chroma, and InputError in a forked process.
        """
        from av.video.frame import PictureType

        processes.need_threads(self, "an encoder of sequences")
        for name, shape in self._shapes.items():
            plane = getattr(coarse, name, None)
            if not checks.is_uint8(plane, 2) or plane.shape != shape:
                raise ImageError(
                    f"{name} of a coarse picture is uint8 {shape}, not {checks.kind(plane)}"
                )
        frame = self._region(qp, hevc.frame(coarse, *self._coded))
        frame.pts = self._count
        self._count += 1
        frame.pict_type = PictureType.I if key else PictureType.NONE
        units = hevc.units(self._encoder.encode(frame))
        parameters = [unit for unit in units if hevc.kind(unit) in _PARAMETERS]
        if self._decoder is None:
            short = sets.shorten(START.join(parameters), *self._size)
            self._decoder = Decoder(short, *self._size)
        coded = [unit for unit in units if hevc.kind(unit) not in _PARAMETERS]
        payload = START.join(coded) if parameters else self._decoder.shortened(coded)
        return payload, self._decoder.decode(payload, key=bool(parameters))

    def _region(self, qp: int, frame: Any) -> Any:
        """The frame with its QP as a region of interest. Every frame needs one: x265 reuses frames,
        and allocates space for the region with the first."""
        graph = self._regions.get(qp)
        if graph is None:
            import av.filter

            graph = self._regions[qp] = av.filter.Graph()
            graph.threads = 1  # by default each has as many as there are cores
            width, height = self._coded
            source = graph.add_buffer(
                width=width, height=height, format=frame.format.name, time_base=Fraction(1)
            )
            region = graph.add("addroi", f"x=0:y=0:w=iw:h=ih:qoffset={qp - _BASE}/51")
            graph.link_nodes(source, region, graph.add("buffersink")).configure()
        graph.push(frame)
        return graph.pull()


class Decoder:
    """Payloads → planes."""

    def __init__(self, parameters: bytes, width: int, height: int, *, short: bool = True) -> None:
        """parameters: HEVC's parameter sets. width, height: of the planes. short: whether parameter
        sets and predicted slices have short forms, as since version 4 of sequences.

        Raises CorruptStream, UnsupportedProfile or LimitExceeded for invalid parameter sets.
        """
        self.parameters = parameters
        self.size = width, height
        self._short = short
        self._place = 0
        """Number of the last picture since the key frame."""
        self._sets = sets.restore(parameters, width, height) if short else parameters
        self._references = sets.references(parameters) if short else 1
        units = self._sets.split(START)
        if [hevc.kind(unit) for unit in units] != list(_PARAMETERS):
            raise CorruptStream("the coarse pictures' parameter sets are not three")
        self.chroma, coded, self._places = hevc.read_sps(Bits(hevc.payload(units[1])))
        self._extra, self._output = _read_pps(units[2])
        if max(coded) > MAX_SIDE + 64:
            raise LimitExceeded(f"coarse pictures of {coded[0]}×{coded[1]} are too large")
        if coded[0] < width or coded[1] < height:
            raise CorruptStream("the coarse pictures are smaller than announced")
        self._decoder: VideoCodecContext | None = None

    def shortened(self, units: list[bytes]) -> bytes:
        """The payload of a predicted picture with these slices."""
        short = (
            slices.shorten(units[0], self._places, self._references) if len(units) == 1 else None
        )
        return short or sets.WHOLE + START.join(units)

    def decode(self, payload: bytes, *, key: bool, lost: bool = False) -> Coarse:
        """The planes of the next picture.

        key: whether it is a key frame, where decoding may begin. lost: whether pictures since the
        key frame are missing. The picture is then decoded as if it followed the last one: motion
        shows, and errors stay until the next key frame. Directly after a key frame this fails for
        whole slices, since they name a picture before it.

        Raises CorruptStream.
        """
        self._place = 0 if key else self._place + 1
        units = self._units(payload, key=key, lost=lost)
        if key:
            self._decoder = hevc.decoder()
            units = [*self._sets.split(START), *units]
        if self._decoder is None:
            raise CorruptStream("a predicted coarse picture before any other")
        decoder, self._decoder = self._decoder, None  # of no more use after an error
        frame = hevc.decoded(decoder, units, "a coarse picture")
        self._decoder = decoder
        width, height = self.size
        if frame.width < width or frame.height < height:
            raise CorruptStream("a coarse picture is smaller than announced")
        return hevc.planes(frame, width, height)

    def _units(self, payload: bytes, *, key: bool, lost: bool) -> list[bytes]:
        """The slices of a picture."""
        if self._short and not key:
            if payload[:1] != sets.WHOLE:
                return [slices.restore(payload, self._place, self._places, self._references)]
            payload = payload[1:]
        units = payload.split(START)
        if any(hevc.kind(unit) not in (_KEYS if key else _PREDICTED) for unit in units):
            raise CorruptStream("a coarse picture of another kind than its frame")
        return [self._renumbered(unit) for unit in units] if lost else units

    def _renumbered(self, unit: bytes) -> bytes:
        """A predicted slice, renumbered to follow the last picture (H.265 7.3.6.1)."""
        raw = hevc.payload(unit)
        bits = Bits(raw[:_OPENING])
        if bits.take(1) == "0":
            raise UnsupportedProfile("a coarse picture in several slices")
        bits.golomb()  # slice_pic_parameter_set_id
        bits.take(self._extra)
        bits.golomb()  # slice_type
        bits.take(self._output)
        place = bits.number(self._places)
        change = place ^ self._place % (1 << self._places)
        number = int.from_bytes(raw, "big") ^ change << (8 * len(raw) - bits.at)
        raw = number.to_bytes(len(raw), "big")
        return unit[:2] + hevc.escaped(raw)


def _read_pps(unit: bytes) -> tuple[int, int]:
    """Numbers of optional bits in a slice header, after its parameter set's id and after its type,
    from a picture parameter set (H.265 7.3.2.3)."""
    bits = Bits(hevc.payload(unit))
    for _ in range(2):
        bits.golomb()  # ids of this set and of the sequence parameter set
    bits.take(1)  # dependent_slice_segments_enabled_flag
    output = bits.number(1)
    return bits.number(3), output

"""Query parameters, made from the fields of the options; the page makes its controls of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, Json, WrapValidator, create_model

from sempic import critical, fields
from sempic.errors import InputError, naming, refused
from sempic.options import DecodeOptions, EncodeOptions
from sempic.palette import CAMVID, CITYSCAPES
from sempic.sequence import SequenceOptions


class NoOptions(BaseModel):
    """Of endpoints without options, and the base of all others."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)  # a typo is an error


_NARROWER: dict[str, dict[str, Any]] = {
    "steps": {"le": 32},
    "seed": {"le": 2**32 - 1},
    "guidance": {"le": 2},  # more makes noise
    "target_bpp": {"le": 1000},
    "target_bytes": {"le": 2**32 - 1},
    "max_side": {"le": 65535},
}
"""Limits of the server where the options have none or wider ones."""


def _parameters(kind: Any) -> dict[str, Any]:
    """The fields of an options dataclass, for `create_model`."""
    kinds = fields.hints(kind)
    return {name: _parameter(name, kinds[name], part) for name, part in fields.of(kind).items()}


def _parameter(name: str, kind: Any, part: dataclasses.Field[Any]) -> tuple[Any, Any]:
    about = fields.about(part)
    bounds = {"ge": about.low, "le": about.high, "gt": about.above} | _NARROWER.get(name, {})
    bounds = {rule: bound for rule, bound in bounds.items() if bound is not None}
    hint: Any
    if name == "palette":  # those to which any segmenter's classes are mapped
        hint = Literal[(CAMVID.name, CITYSCAPES.name)]
    elif name == "critical":  # only the table itself: the server opens no path of a client
        hint = Annotated[Json[dict[str, Any]], WrapValidator(_unrepeated)]
    elif get_origin(kind) is Mapping or fields.repeats(kind, about):
        hint = list[str]
    elif about.choices is not None:
        hint = Literal[tuple(about.choices)]
    else:
        parts = get_args(kind) if get_origin(kind) is Union else (kind,)
        numbers = tuple(Annotated[k, Field(**bounds)] if k in (int, float) else k for k in parts)
        hint = Union[numbers]  # noqa: UP007 - also for a single part
    default = part.default if about.usual is None else about.usual
    description = about.help[0].upper() + about.help[1:] + "."
    title = name.replace("_", " ").capitalize()
    return (
        hint if default is not None else hint | None,
        Field(default, title=title, description=description),
    )


def _unrepeated(text: Any, parse: Callable[[Any], Any]) -> Any:
    """The parsed table; raises InputError for a repeated name, of which `Json` takes the last."""
    found = parse(text)
    with refused(InputError, "critical: no table of groups", ValueError, unfit=True):
        critical.entries(text)
    return found


class _DecodingOutput(NoOptions):
    only: Literal["labels", "ids", "coarse"] | None = Field(
        None,
        description="Only one part: the label map in its colours, its ids as an 8-bit grey PNG, or "
        "the enlarged coarse picture.",
    )
    format: Literal["png", "webp", "jpeg"] = "png"


Decoding: Any = create_model("Decoding", __base__=_DecodingOutput, **_parameters(DecodeOptions))
"""Options of /decode; the page has a slider for each that the receiver supports."""


class _EncodingInput(NoOptions):
    labels: Literal["none"] | None = Field(None, description="none: send no label map.")


Encoding: Any = create_model("Encoding", __base__=_EncodingInput, **_parameters(EncodeOptions))
"""Options of /encode."""

LISTS = {
    name for name, field in Encoding.model_fields.items() if "list[str]" in str(field.annotation)
}
"""Options that may be given several times."""


def changed(query: BaseModel) -> set[str]:
    """The options whose values are not their defaults. Only they can contradict others, since
    clients that are generated from OpenAPI send all defaults."""
    return set(query.model_dump(exclude_defaults=True))


def from_query(query: BaseModel, kind: Any) -> dict[str, Any]:
    """Keywords for an options dataclass: its fields that the query sets. Raises InputError."""
    kinds = fields.hints(kind)
    values = query.model_dump(include=set(kinds), exclude_unset=True)
    for name, value in values.items():
        with naming(name):
            values[name] = fields.read(kinds[name], value)
    return values


class _FilmingInput(NoOptions):
    fps: float = Field(10, ge=0.1, le=60, description="Frames per second.")
    seconds: float = Field(
        10, gt=0, le=60, description="Length of the coded part, from the start of the clip."
    )
    max_side: int | None = Field(None, ge=1, le=65535, description="As of /encode.")


Filming: Any = create_model("Filming", __base__=_FilmingInput, **_parameters(SequenceOptions))
"""Options of /film."""


_found = {"critical": _parameters(EncodeOptions)["critical"]}
Finding: Any = create_model("Finding", __base__=NoOptions, **_found)
"""Options of /objects."""


class Comparison(NoOptions):
    """Options of /compare."""

    max_side: int | None = Field(None, ge=1, le=65535, description="As of /encode.")
    codec: Literal["avif", "jpeg"] = "avif"
    bytes: int = Field(ge=1, le=1 << 25, description="Most bytes of the file.")

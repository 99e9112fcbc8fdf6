"""The answers and refusals of every endpoint."""

import io
import itertools
import json
import re
import tempfile

import numpy as np
import PIL.Image
import pytest
from conftest import ROOT
from fakecoder import FakeCoder, receive, segment
from fastapi.testclient import TestClient
from standin import IMAGE, LABELS, clip, pixels, png, pool, refused, settings, stream

import sempic
from sempic import api, pictures, sequence
from sempic.errors import LimitExceeded
from sempic.palette import CAMVID
from sempic.server import app, routes
from sempic.server.pool import Done

SIGN = IMAGE.copy()
SIGN[8:16, 32:48] = (20, 30, 250)


def test_encode_info_and_decode_agree_with_the_codec(client):
    answer = client.post("/encode", params={"quality": 3}, content=png())
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "image/x-sempic"
    assert re.fullmatch(r"queue;dur=[\d.]+, work;dur=[\d.]+", answer.headers["Server-Timing"])
    assert "X-Notes" not in answer.headers
    assert answer.content == FakeCoder().encode(png(), quality=3, max_side=None)
    assert client.post("/info", content=answer.content).json() == sempic.info(answer.content)
    for format in ("png", "webp", "jpeg"):
        query = {"steps": 3, "seed": 7, "format": format}
        decoded = client.post("/decode", params=query, content=answer.content)
        assert decoded.headers["Content-Type"] == f"image/{format}"
        assert pixels(decoded.content).shape == (48, 64, 3)
    plain = client.post("/decode", params={"steps": 3, "seed": 7}, content=answer.content)
    assert pixels(plain.content)[0, 0].tolist() == [0, 3, 7]


def test_long_streams_are_described_by_a_worker(client, monkeypatch):
    """A hostile one takes a minute, in which the server would answer nobody."""
    monkeypatch.setattr(routes, "SHORT", 0)
    assert client.post("/info", content=stream()).json() == sempic.info(stream())
    assert 'sempic_work_seconds_count{verb="info"} 1.0' in client.get("/metrics").text
    refused(client.post("/info", content=png()), 422, "NotSempic")


def test_a_checked_answer_has_its_receipt_in_a_header(client):
    answer = client.post("/encode", params={"check": True}, content=png())
    receipt = json.loads(answer.headers["X-Receipt"])
    assert receipt == sempic.info(answer.content)["receipt"]
    assert receipt["verifier"] == "0badcafe"
    assert "X-Receipt" not in client.post("/encode", content=png()).headers


def test_a_table_of_groups_is_json_and_never_a_path(client, tmp_path):
    table = {"who walks": ["pedestrian"], "wheels": {"classes": ["car"], "pixels": 9}}
    query = {"check": True, "critical": json.dumps(table)}
    answer = client.post("/encode", params=query, content=png())
    assert answer.status_code == 200, answer.text
    assert list(json.loads(answer.headers["X-Receipt"])["groups"]) == list(table)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    for wrong in (str(path), json.dumps(str(path)), "[]", '{"a": ["ghost"]}', '{"a": 5}'):
        answer = client.post("/encode", params=query | {"critical": wrong}, content=png())
        refused(answer, 422, "InputError")
        assert "critical: " in answer.json()["message"]
    twice = query | {"critical": '{"a": ["car"], "a": ["sign"]}'}
    answer = client.post("/encode", params=twice, content=png())
    refused(answer, 422, "InputError", "critical: no table of groups ('a' stands in it twice)")


def test_encode_obeys_size_rate_and_codec(client):
    small = client.post("/encode", params={"max_side": 32}, content=png()).content
    assert (sempic.info(small)["width"], sempic.info(small)["height"]) == (32, 24)
    within = client.post("/encode", params={"target_bpp": 3}, content=png()).content
    assert sempic.info(within)["bpp"] <= 3
    refused(client.post("/encode", params={"target_bpp": 1e-3}, content=png()), 422, "RateError")
    webp = client.post("/encode", params={"coarse_codec": "webp"}, content=png()).content
    assert sempic.info(webp)["coarse_codec"] == "webp"


def test_encode_sends_no_map_on_demand(client):
    stream = client.post("/encode?labels=none", content=png()).content
    assert sempic.unpack(stream).labels is None
    assert client.post("/encode?labels=map.png", content=png()).status_code == 422


def test_notes_in_any_language_fit_into_a_header():
    """The note of a prior has the name of a palette."""
    done = Done(None, 0, 0, ["of palette 街", "of ü"])
    answer = routes._answer(done, b"", kind=routes.SEMPIC)
    assert answer.headers["X-Notes"] == r"of palette \u8857; of \xfc"


def test_warnings_come_as_notes(client):
    rgba = np.dstack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 9, np.uint8)])
    answer = client.post("/encode", params={"target_bpp": 900}, content=png(rgba))
    assert answer.status_code == 200
    first, second = answer.headers["X-Notes"].split("; quality")
    assert first == "transparency is laid over white; a .sempic file has none"
    assert second.startswith(" 9, the finest, takes")


def test_decode_gives_single_parts(client):
    def part(only):
        return pixels(client.post("/decode", params={"only": only}, content=stream()).content)

    assert np.array_equal(part("ids"), LABELS)
    assert np.array_equal(part("labels"), LABELS)  # a palette picture: indices
    assert np.array_equal(part("coarse"), api.preview(sempic.unpack(stream())))
    bare = stream(labels=None)
    for only in ("labels", "ids"):
        answer = client.post("/decode", params={"only": only}, content=bare)
        refused(answer, 422, "BitstreamError", "no label map")


def duration(shown):
    """Milliseconds of an animation."""
    total = 0
    for number in range(shown.n_frames):
        shown.seek(number)
        shown.load()
        total += shown.info["duration"]
    return total


def test_a_clip_becomes_a_sequence_and_an_animation(client):
    moving = clip(step=8)  # WebP joins frames that hardly differ
    answer = client.post("/film", params={"fps": 5, "seconds": 0.8, "quality": 3}, content=moving)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/x-sempic")
    about = client.post("/info", content=answer.content).json()
    assert about == sequence.info(answer.content)
    assert (about["frames"], about["rate"], about["width"], about["height"]) == (4, 5, 64, 48)
    small = client.post("/film", params={"max_side": 32}, content=clip()).content
    assert (sequence.info(small)["width"], sequence.info(small)["frames"]) == (32, 10)

    query = {"format": "webp", "steps": 3, "seed": 7}
    decoded = client.post("/decode", params=query, content=answer.content)
    shown = PIL.Image.open(io.BytesIO(decoded.content))
    assert (shown.format, shown.size) == ("WEBP", (64, 48))
    coder = sempic.Codec(segment, receive)
    frames = [*sequence.decode([answer.content], codec=coder, steps=3, seed=7)]
    assert len(frames) == 4
    others = sum(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))
    assert shown.n_frames == 1 + others  # equal frames are one
    assert duration(shown) == 800
    labels = client.post("/decode", params={"only": "labels"}, content=answer.content)
    shown = PIL.Image.open(io.BytesIO(labels.content))
    assert shown.format == "PNG"
    assert duration(shown) == 800
    assert shown.convert("RGB").getpixel((5, 5)) == CAMVID.colours[0]  # sky above

    for only, format in (("ids", "png"), (None, "jpeg")):
        query = {"format": format} | ({"only": only} if only else {})
        refusal = client.post("/decode", params=query, content=answer.content)
        refused(refusal, 422, "InputError", "decoded to png or webp")
    refused(client.post("/encode", content=clip()), 422, "ImageError", "a video, not a picture")
    broken = client.post("/decode", content=answer.content[:40])
    refused(broken, 422, "CorruptStream", "no frame that can be decoded")
    assert "X-Notes" not in decoded.headers
    *packets, _, last, end = answer.content.split(b"\0")
    damaged = client.post("/decode", content=b"\0".join([*packets, last, end]))
    said = "frames 2 to 3: each is lost or needs a frame that is lost"
    assert damaged.headers["X-Notes"] == said


def test_unusable_and_large_clips_are_refused(client):
    for junk in (png(), b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x.mp4\n"):
        refused(client.post("/film", content=junk), 422, "InputError", "the clip: not a video")
    refused(client.post("/film"), 422, "InputError", "can be read: the file is empty")
    refused(client.post("/film", content=clip()[:200]), 422, "InputError", "the clip")
    large = clip(264, 256, 2)
    refused(client.post("/film", content=large), 413, "LimitExceeded", "264×256")
    shrunk = client.post("/film", params={"max_side": 66, "seconds": 0.2}, content=large)
    assert sequence.info(shrunk.content)["width"] == 66
    coder = FakeCoder(max_pixels=64 * 48)
    assert coder.film(clip(), fps=16, seconds=1)  # sixteen frames
    with pytest.raises(LimitExceeded, match="fewer seconds"):
        coder.film(clip(), fps=20, seconds=1)
    long = FakeCoder().film(clip(), fps=20, seconds=1)
    with pytest.raises(LimitExceeded, match=r"pixels$"):  # /decode has no such options
        coder.decode(long, only=None, format="png", synthesis={})


def test_relabel_replaces_the_map(client):
    flat = np.full_like(LABELS, 3)
    files = {"sempic": stream(), "labels": png(flat)}
    answer = client.post("/relabel", files=files)
    assert np.array_equal(sempic.unpack(answer.content).labels, flat)
    files["labels"] = png(np.full_like(LABELS, 99))
    refused(client.post("/relabel", files=files), 422, "LabelMapError", "id 99")
    refused(client.post("/relabel", files={"sempic": stream()}), 422, "InputError", "labels")


def test_objects_of_a_stream_have_places(client):
    checked = {"check": True, "check_budget": 0, "max_side": 40}
    coded = client.post("/encode", params=checked, content=png(SIGN))
    files = {"sempic": coded.content, "original": png(SIGN)}
    found = client.post("/objects", files=files).json()
    groups = json.loads(coded.headers["X-Receipt"])["groups"]
    assert groups["signs and lights"]["lost"] == groups["vehicles"]["invented"] == 1
    assert found == [
        {"group": "vehicles", "verdict": "invented", "box": [0, 23, 10, 7]},
        {"group": "signs and lights", "verdict": "lost", "box": [20, 5, 10, 5]},
    ]
    query = {"critical": '{"what drives": ["car"]}'}
    (only,) = client.post("/objects", params=query, files=files).json()
    assert only["group"] == "what drives"


def test_an_original_that_is_not_of_the_stream_is_refused(client):
    def answer(original, coded=None, **more):
        files = {"sempic": coded or stream(), "original": original}
        return client.post("/objects", files=files, **more)

    assert answer(png()).status_code == 200
    refused(answer(png(SIGN[:30])), 422, "InputError", "64×30", "64×48")
    refused(answer(png(), stream()[:-1]), 422, "TruncatedStream")
    refused(answer(png()[:60]), 422, "ImageError")
    refused(answer(png(np.zeros((1024, 1024, 3), np.uint8))), 413, "LimitExceeded", "1024×1024")
    large = sempic.pack(width=512, height=512, labels=np.zeros((512, 512), np.uint8))
    refused(answer(png(), large), 413, "LimitExceeded")
    ghosts = {"critical": '{"ghosts": ["ghost"]}'}
    refused(answer(png(), params=ghosts), 422, "InputError", "critical: ghosts")
    refused(client.post("/objects", files={"sempic": stream()}), 422, "InputError", "original")
    form = [("sempic", stream()), ("original", png()), ("original", png())]
    refused(client.post("/objects", files=form), 422, "InputError", "one sempic and one original")
    form = {"sempic": ("a.sempic", stream()), "original": (None, b"a photograph")}
    refused(client.post("/objects", files=form), 422, "InputError", "original: sent as text")


def test_a_part_of_a_form_that_is_no_file_is_named(client):
    form = {"sempic": (None, stream()), "labels": ("map.png", png(LABELS))}
    answer = client.post("/relabel", files=form)
    refused(answer, 422, "InputError", "sempic: sent as text", "-F sempic=@FILE")
    answer = client.post("/relabel", data={"sempic": "a", "labels": "b"})
    refused(answer, 422, "InputError", "sempic: sent as text")


@pytest.mark.parametrize("path", ["encode", "film", "decode", "info", "compare?bytes=900"])
def test_a_form_instead_of_a_file_is_named(client, path):
    """As of `curl -F file=@photo.jpg`."""
    answer = client.post(f"/{path}", files={"file": png()})
    refused(answer, 422, "InputError", "the body is a form", "--data-binary")


def test_forms_stay_in_memory(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    files = {"sempic": stream(), "labels": bytes(3_000_000)}
    with TestClient(app.create_app(settings(), pool())) as client:
        refused(client.post("/relabel", files=files), 422, "LabelMapError")


def test_compare_codes_within_the_bytes(client):
    for codec in ("avif", "jpeg"):
        query = {"codec": codec, "bytes": 800, "max_side": 40}
        answer = client.post("/compare", params=query, content=png())
        assert answer.headers["Content-Type"] == f"image/{codec}"
        assert len(answer.content) <= 800
        factor = int(answer.headers["X-Scaled-Down"])
        assert pixels(answer.content).shape[:2] == (30 // factor, 40 // factor)
    query = {"codec": "jpeg", "bytes": 3}
    refused(client.post("/compare", params=query, content=png()), 422, "RateError", "3 bytes")


def test_get_info_describes_the_server(client):
    about = client.get("/info").json()
    assert about["version"] == sempic.__version__
    assert about["limits"]["bytes"] == 50_000
    assert set(about["decode"]) == {"steps", "seed"}  # the options of this receiver
    assert about["palettes"]["camvid"]["classes"][0] == "sky"
    assert next(iter(about["scenes"])) == "street.jpg"
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["street.jpg", "street.sempic"])
def test_the_bundled_scenes_are_the_examples(client, name):
    answer = client.get(f"/scenes/{name}")
    assert answer.content == (ROOT / "examples" / name).read_bytes()
    if name.endswith(".sempic"):
        assert answer.headers["content-type"] == "image/x-sempic"
        assert sempic.info(answer.content)["bytes"] == len(answer.content)
    else:
        assert answer.headers["content-type"] == "image/jpeg"
        assert pixels(answer.content).shape == (288, 512, 3)


@pytest.mark.parametrize("name", ["nothing.sempic", "..%2f__init__.py", "%2fetc%2fpasswd"])
def test_no_path_of_a_client_is_opened(client, name):
    answer = client.get(f"/scenes/{name}")
    assert answer.status_code == 404
    assert "import" not in answer.text


@pytest.mark.parametrize("cut", [0, 1, 2, 10, 40])
def test_truncated_streams_are_refused_as_by_the_codec(client, cut):
    with pytest.raises(sempic.BitstreamError) as error:
        sempic.info(stream()[:cut])
    for path in ("/decode", "/info"):
        answer = client.post(path, content=stream()[:cut])
        refused(answer, 422, type(error.value).__name__, str(error.value))


def test_foreign_bodies_are_refused(client):
    refused(client.post("/decode", content=png()), 422, "NotSempic")
    pickled = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."
    for path in ("/encode", "/compare?bytes=99"):
        refused(client.post(path, content=b""), 422, "ImageError", "empty")
        refused(client.post(path, content=pickled), 422, "ImageError", "not a picture")
        refused(client.post(path, content=png()[:60]), 422, "ImageError")


def test_the_page_loads_nothing_from_other_hosts(client):
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.text)  # the policy forbids these


def test_the_reference_loads_nothing_from_other_hosts(client):
    answer = client.get("/docs")
    page, policy = answer.text, answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == page.count("<script>") == 1
    sources = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)""", page)
    assert len(sources) >= 4
    assert [s["url"] for s in client.get("/openapi.json").json()["servers"]] == ["."]
    for source in sources:  # relative: a proxy may remove a path before all of these
        assert re.match(r"[\w.-]+(/|$)", source)
        assert client.get(f"/{source}").status_code == 200


def test_compare_scales_down_sides_that_a_codec_cannot_code(client):
    wide = pictures.encode(np.zeros((1, 65535, 3), np.uint8), ".png")
    answer = client.post("/compare", params={"codec": "jpeg", "bytes": 5000}, content=wide)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Scaled-Down"] == "2"
    assert pictures.peek(answer.content) == (32767, 1)

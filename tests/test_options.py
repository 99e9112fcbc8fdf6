"""One list of options, offered by all interfaces."""

import argparse
import inspect
import re

import pytest
from conftest import ROOT

import sempic
import sempic.pillow
from sempic import api, batch, cli, commands, fields
from sempic.errors import InputError
from sempic.options import DecodeOptions, EncodeOptions
from sempic.palette import BY_NAME, CAMVID, CITYSCAPES

KINDS = {"encode": EncodeOptions, "decode": DecodeOptions}
NAMES = {name: set(fields.of(kind)) for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_python_has_all_options(name):
    """The defaults are the same, too."""
    others = {"image", "labels", "stream"}
    defaults = {name: part.default for name, part in fields.of(KINDS[name]).items()}
    for function in (getattr(sempic, name), getattr(sempic.Codec(), name)):
        found = inspect.signature(function).parameters
        assert {n: p.default for n, p in found.items() if n not in others} == defaults
        assert function.__doc__
    assert pickled_by_name(getattr(sempic, name))
    for name in ("synthesize", "uncertainty"):
        found = set(inspect.signature(getattr(sempic.Codec, name)).parameters)
        assert found - {"self", "scene", "samples"} == NAMES["decode"]


def pickled_by_name(function):
    return getattr(api, function.__qualname__) is function


@pytest.mark.parametrize("name", KINDS)
def test_the_command_line_has_all_options(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    for option in NAMES[name]:
        assert f"--{option.replace('_', '-')}" in shown


@pytest.mark.parametrize("name", KINDS)
def test_the_server_has_all_options(name):
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra `serve`)")
    from sempic.server.app import create_app

    described = create_app().openapi()["paths"][f"/{name}"]["post"]["parameters"]
    found = {p["name"]: p["schema"] for p in described}
    assert found.keys() - {"only", "format", "labels"} == NAMES[name]
    for option, part in fields.of(KINDS[name]).items():
        schema, told = found[option], fields.about(part)
        bounds = [schema, *schema.get("anyOf", ())]
        assert told.low is None or any(b.get("minimum") == told.low for b in bounds)
        assert told.high is None or any(b.get("maximum", 1e9) <= told.high for b in bounds)
        assert schema["description"].lower().startswith(told.help.lower())


def test_the_pillow_plugin_has_all_options(monkeypatch, tmp_path):
    import PIL.Image

    got = {}
    monkeypatch.setattr(api, "encode", lambda image, **given: got.update(given) or b"")
    wanted = {name: object() for name in NAMES["encode"]}
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.sempic", optimize=True, **wanted)
    assert got == wanted
    monkeypatch.setattr(api, "decode", lambda stream, **given: got.update(given) or 1 / 0)
    (tmp_path / "b.sempic").write_bytes(sempic.pack(width=8, height=8, coarse=b"x"))
    with PIL.Image.open(tmp_path / "b.sempic") as picture, pytest.raises(ZeroDivisionError):
        picture.load(**dict.fromkeys(NAMES["decode"], 1))
    assert NAMES["decode"] <= got.keys()


def test_batch_has_all_options():
    for work, kind in ((batch.Encode(), EncodeOptions), (batch.Decode(), DecodeOptions)):
        assert work.options == kind()
        assert work.options.keywords().keys() == set(fields.of(kind))


def test_the_docs_list_all_options():
    page = (ROOT / "docs/reference/options.md").read_text()
    assert re.findall(r"^\{\{ options (\w+) \}\}$", page, re.MULTILINE) == list(KINDS)
    for path in ("docs/guides/python.md", "docs/guides/serve.md"):
        assert "reference/options.md" in (ROOT / path).read_text()


def test_options_are_values():
    one, other = EncodeOptions(quality=3), EncodeOptions(quality=3)
    assert one == other != EncodeOptions(quality=4)
    with pytest.raises(AttributeError):
        one.quality = 4
    with pytest.raises(InputError, match="quality is 1…9, not 10"):
        EncodeOptions(quality=10)
    with pytest.raises(InputError, match="fidelity is 0…1, not 2"):
        DecodeOptions(fidelity=2)


def test_classes_are_any_collection_of_names():
    for classes in (["car"], {"car": 2}.keys(), frozenset({"car"}), "car"):
        assert EncodeOptions(keep=classes).keep == ("car",)
    for wrong in (5, None, b"car", [b"car"], iter(["car"])):
        with pytest.raises(InputError, match="keep is names of classes"):
            EncodeOptions(keep=wrong)


def test_a_palette_is_named_by_name_or_id():
    for palette, known in ((None, CAMVID), ("cityscapes", CITYSCAPES), (2, CITYSCAPES)):
        options = EncodeOptions(palette=palette)
        assert (options.palette, options.known_palette) == (palette, known)


def test_options_name_their_files(tmp_path):
    balls, groups = (str(tmp_path / name) for name in ("balls.json", "groups.json"))
    (tmp_path / "balls.json").write_text('{"name": "balls", "classes": [{"name": "ball"}]}')
    (tmp_path / "groups.json").write_text('{"balls": ["ball"]}')
    assert EncodeOptions(palette="camvid").files == ()
    assert EncodeOptions(palette=balls).files == (balls,)
    assert EncodeOptions(check=True, critical=groups).files == (groups,)
    assert EncodeOptions(palette=balls, check=True, critical=groups).files == (balls, groups)


def test_either_target_chooses_the_quality():
    wishes = ({}, {"target_bpp": 0.1}, {"target_bytes": 100})
    assert [EncodeOptions(**wish).targeted for wish in wishes] == [False, True, True]
    with pytest.raises(InputError, match=r"^target_bpp and target_bytes exclude each other$"):
        EncodeOptions(target_bpp=0.1, target_bytes=100)
    for wish in wishes[1:]:
        with pytest.raises(InputError, match=f"^quality and {min(wish)} exclude each other$"):
            EncodeOptions(quality=3, **wish)


def test_a_palette_file_may_be_any_path_object(tmp_path):
    path = tmp_path / "balls.json"
    with pytest.raises(InputError, match=r"balls\.json: not a palette file"):
        EncodeOptions(palette=path)
    path.write_text('{"name": "balls", "classes": [{"name": "ball"}]}')
    assert EncodeOptions(palette=path) == EncodeOptions(palette=str(path))


def test_the_help_of_palette_names_those_of_label_maps_apart():
    about = fields.about(fields.of(EncodeOptions)["palette"])
    said = about.help + about.console
    _own, without_map, names = said.split(". ")
    assert [name for name in BY_NAME if name in re.split(r"\W", without_map)] == [
        "camvid",
        "cityscapes",
    ]
    assert names.startswith(f"Your map may have {', '.join(BY_NAME)}, or")


def test_the_options_of_the_command_line_are_the_checked_ones(capsys):
    parser = commands.parsers("encode")[1]["encode"]
    given = "a.png -q 3 --importance car=2,sky=0 --importance person=inf --label-quality lossless"
    given += " --keep-box 1,2,3,4 --keep-box 5,6,1,1"
    args = parser.parse_args(given.split())
    assert EncodeOptions(**fields.from_args(args, EncodeOptions)) == EncodeOptions(
        quality=3,
        importance={"car": 2.0, "sky": 0.0, "person": float("inf")},
        label_quality="lossless",
        keep_boxes=((1, 2, 3, 4), (5, 6, 1, 1)),
    )
    for wrong, said in (
        ("--label-quality 9", "label_quality is 1…5 or lossless, not 9"),
        ("--label-quality best", "label_quality is 1…5 or lossless, not 'best'"),
        ("--quality best", "quality is a whole number, not 'best'"),
        ("--target-bpp little", "target_bpp is a number, not 'little'"),
        ("--importance car", "'car' is not NAME=NUMBER"),
        ("--importance car=2,sky", "'sky' is not NAME=NUMBER"),
        ("--palette nowhere", "palette 'nowhere' is not one of"),
        ("--ignore-label 256", "ignore_label is 0…255, not 256"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(["a.png", *wrong.split()])
        assert said in capsys.readouterr().err
    assert isinstance(parser, argparse.ArgumentParser)

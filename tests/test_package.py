"""What the package promises as a whole: its names, and what it loads."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_models

import spic

PUBLIC = """
BitstreamError Coarse Codec CorruptStream ImageError InputError LabelMapError LimitExceeded
ModelError NotSpic OutputError PALETTES Palette QUALITY Quality RateError Scene SpicError
TruncatedStream UnsupportedChunk UnsupportedProfile UnsupportedVersion __version__ decode
encode info pack unpack
"""
PUBLIC_NAMES = set(PUBLIC.split())


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stdout.split())


def test_public_names():
    assert len(spic.__all__) == len(set(spic.__all__))
    assert set(spic.__all__) == PUBLIC_NAMES
    assert all(hasattr(spic, name) for name in PUBLIC_NAMES)


def test_every_error_is_a_spic_error():
    errors = [getattr(spic, n) for n in PUBLIC_NAMES if isinstance(getattr(spic, n), type)]
    errors = [e for e in errors if issubclass(e, Exception)]
    assert len(errors) == 15
    assert all(issubclass(e, spic.SpicError) for e in errors)


def test_the_package_is_typed():
    assert (Path(spic.__file__).parent / "py.typed").exists()


def test_import_loads_no_network_and_no_codec():
    loaded = loaded_after("import spic, spic.cli")
    assert not loaded & {"torch", "onnxruntime", "numba", "av", "PIL", "tqdm", "transformers"}


def test_info_loads_no_codec():
    loaded = loaded_after(
        "import spic\nfrom spic.container import *\n"
        "spic.info(write(Container(width=9, height=9, palette=1, labels=b'x')))"
    )
    assert not loaded & {"torch", "onnxruntime", "numba", "av", "PIL"}


def test_unpack_loads_no_network():
    loaded = loaded_after(
        "import spic, numpy as np\n"
        "spic.unpack(spic.pack(width=9, height=9, labels=np.zeros((9, 9), np.uint8)))"
    )
    assert not loaded & {"torch", "onnxruntime", "transformers"}


@needs_models
@pytest.mark.parametrize("size", [(40, 30)])
def test_the_bundled_models_run_without_torch(size):
    loaded = loaded_after(
        "import spic, PIL.Image\n"
        f"spic.decode(spic.encode(PIL.Image.new('RGB', {size}, 'grey')), steps=1)"
    )
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "transformers", "onnx"}

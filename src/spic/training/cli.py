"""`spic train …`: one command for each network, all of them resumable."""

from __future__ import annotations

import argparse
import sys

from spic.errors import SpicError

_COMMANDS = {
    "segmenter": "fine-tune an ImageNet backbone to find the classes of CamVid",
    "compact": "teach the compact receiver to denoise residuals",
    "distill": "make a trained compact receiver sharp in 1 to 4 steps",
    "export": "write trained weights as the ONNX files that the product runs",
}


def main(argv: list[str]) -> int:
    """Run one of the training commands; returns the exit code, 0 or 2."""
    listed = "\n".join(f"  {name:<11}{what}" for name, what in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="spic train",
        description="Train the networks of spic. `spic train COMMAND --help` says more.",
        epilog=f"commands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND")
    command = parser.parse_args(argv[:1]).command
    from spic.training import compact, distill, export, segmenter

    run = {
        "segmenter": segmenter.main,
        "compact": compact.main,
        "distill": distill.main,
        "export": export.main,
    }[command]
    try:
        run(argv[1:])
    except SpicError as error:
        print(f"spic: train {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "spic: interrupted; the same command goes on from the last checkpoint", file=sys.stderr
        )
        return 2
    return 0

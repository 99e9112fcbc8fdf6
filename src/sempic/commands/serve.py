"""`sempic serve`."""

from __future__ import annotations

import argparse

from sempic import fields
from sempic.server.settings import Settings


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serves the codec over HTTP, with a demo page (needs the extra serve). Ctrl-C or SIGTERM "
        "ends the server when accepted work is finished. The log is JSON lines on stderr."
    )
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0: any free port")
    fields.add(parser, Settings)


def run(args: argparse.Namespace) -> int:
    from sempic.server import app

    app.serve(Settings(**fields.from_args(args, Settings)), host=args.host, port=args.port)
    return 0

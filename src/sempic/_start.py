"""The first steps of `import sempic`: Ctrl-C for the command, and no telemetry."""

import contextlib
import os
import signal
import sys

# Ctrl-C ends the command without a traceback while it loads. Python's own handler, which prints
# one, is active until here, so this module comes first and imports little.
COMMAND = os.path.basename(sys.argv[0]) in ("sempic", "sempic.exe") or any(
    pair in (("-m", "sempic"), ("-m", "sempic.cli"))
    for pair in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
)
"""Whether this process is the command `sempic`, not another program that imports sempic."""
if COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    with contextlib.suppress(ValueError):  # raised outside the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)

# These libraries send telemetry by default once they are imported.
for _name, _value in (
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _value)

"""What comes before everything else when sempic is imported."""

import contextlib
import os
import signal
import sys

# The command, while it still loads, is ended by Ctrl-C like any other, without a traceback. This
# comes first, since until here Python's own handler is at work; so it is quick.
COMMAND = os.path.basename(sys.argv[0]) == "sempic" or any(
    pair in (("-m", "sempic"), ("-m", "sempic.cli"))
    for pair in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
)
"""Whether this process is ours: the command and nobody else's program."""
if COMMAND and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nobody else's
    with contextlib.suppress(ValueError):  # in a thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)

# No word to anybody: these libraries report to their makers by default, once they are imported.
for _name, _value in (
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _value)

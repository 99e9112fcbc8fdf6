"""What comes before everything else when sempic is imported."""

import os
import signal
import sys
import threading

# No word to anybody: these libraries report to their makers by default, once they are imported.
for _name, _value in (
    ("ORT_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("RAY_USAGE_STATS_ENABLED", "0"),
):
    os.environ.setdefault(_name, _value)

# The command, while it still loads, is ended by Ctrl-C like any other, without a traceback.
_command = os.path.basename(sys.argv[0]) == "sempic" or sys.orig_argv[1:3] == ["-m", "sempic"]
if (
    _command
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else somebody chose another
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

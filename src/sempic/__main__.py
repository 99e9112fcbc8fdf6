"""`python -m sempic` is the command `sempic`."""

import sys

from sempic.cli import main

sys.exit(main())

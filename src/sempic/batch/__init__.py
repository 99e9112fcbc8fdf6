"""Many files at once: what there is to do, by whom it is done, and what came of it.

`sempic.jobs` says what there is to do. *Work* (`work`) is a picklable function of a job that
returns records, one for each picture. `engines` are three ways to have it done. A `Manifest` keeps
the records, and knows after an interruption what is done.
"""

from sempic.batch.engines import ENGINES, Done, here, in_processes, in_ray, run
from sempic.batch.manifest import Manifest
from sempic.batch.work import Decode, Encode, Record, Work, described, stream_of

__all__ = [
    "ENGINES",
    "Decode",
    "Done",
    "Encode",
    "Manifest",
    "Record",
    "Work",
    "described",
    "here",
    "in_processes",
    "in_ray",
    "run",
    "stream_of",
]

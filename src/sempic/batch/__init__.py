"""Coding many files.

`sempic.jobs` plans the jobs. *Work* (`work`) is a picklable function of a job that returns one
record for each picture. `engines` run work in this process, in several processes or in Ray. A
`Manifest` stores the records, so that a later run can skip finished jobs.
"""

from sempic.batch.engines import ENGINES, Done, bounded, here, in_processes, in_ray, run
from sempic.batch.manifest import Manifest
from sempic.batch.work import Decode, Encode, Record, Work, coder_with, json_line, load, stream_of

__all__ = [
    "ENGINES",
    "Decode",
    "Done",
    "Encode",
    "Manifest",
    "Record",
    "Work",
    "bounded",
    "coder_with",
    "here",
    "in_processes",
    "in_ray",
    "json_line",
    "load",
    "run",
    "stream_of",
]

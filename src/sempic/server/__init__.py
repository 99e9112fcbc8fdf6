"""`sempic serve`: the codec over HTTP, and a demo page (docs/guides/serve.md).

Requests stay bytes in memory: no name or path from a client is opened, nothing is unpickled. `app`
and `routes` speak HTTP; worker processes (`pool`) parse and code (`coder`). Workers load no HTTP
modules, so this module imports nothing.
"""

"""`sempic serve`: the codec over HTTP, and a demo page (docs/guides/serve.md).

    POST /encode    picture → .sempic              GET /         the page
    POST /film      clip → .sempic sequence        GET /info     limits, options and palettes
    POST /decode    .sempic → picture or clip      GET /healthz  200 while a worker is alive
    POST /info      .sempic → bytes of each part   GET /metrics  for Prometheus
    POST /relabel   .sempic + label map → .sempic  GET /docs     every endpoint, by /openapi.json
    POST /compare   picture → AVIF or JPEG
    POST /objects   .sempic + picture → critical objects kept, lost and invented

Requests stay bytes in memory: no name or path from a client is opened, nothing is unpickled. `app`
and `routes` speak HTTP; worker processes (`pool`) parse and code (`coder`). Workers load no HTTP
modules, so this module imports nothing.
"""

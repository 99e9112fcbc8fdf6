"""`sempic serve`: the codec over HTTP, and a page to look at it (docs/serve.md).

    POST /encode    picture → .sempic            GET /         the page
    POST /decode    .sempic → picture            GET /info     what this server takes and offers
    POST /info      .sempic → what it costs      GET /healthz  200 while it serves
    POST /relabel   .sempic + label map → .sempic  GET /metrics  for Prometheus
    POST /compare   picture → AVIF or JPEG     GET /docs     every endpoint, from /openapi.json

Whatever a client sends is bytes in memory: no name or path of theirs is opened, nothing is
unpickled. `app` speaks HTTP; parsing and coding happen in worker processes (`work`), which load
nothing of `app`: hence nothing is imported here.
"""

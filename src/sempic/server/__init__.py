"""`sempic serve`: the codec over HTTP, and a page to look at it (docs/guides/serve.md).

    POST /encode    picture → .sempic              GET /         the page
    POST /film      clip → .sempic sequence        GET /info     what this server takes and offers
    POST /decode    .sempic → picture or clip      GET /healthz  200 while it serves
    POST /info      .sempic → what it costs        GET /metrics  for Prometheus
    POST /relabel   .sempic + label map → .sempic  GET /docs     every endpoint, by /openapi.json
    POST /compare   picture → AVIF or JPEG

Whatever a client sends is bytes in memory: no name or path of theirs is opened, nothing is
unpickled. `app` speaks HTTP, by its `routes`; parsing and coding (`coder`) happen in worker
processes (`pool`), which load nothing of HTTP: hence nothing is imported here.
"""

"""WHAT HAPPENS TO ONE REQUEST: the nine stages from its arrival to its settlement.

Words: a *trip* is what is known of one request while it runs (and what its log line says); a *reply* is the
client's side of it; an *attempt* is one dispatch to one target. The relay knows no provider, no model by name
and no locality: the embedded model is a target like any other. It writes money nowhere but in `settle`.
"""

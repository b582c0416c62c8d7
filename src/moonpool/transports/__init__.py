"""How do bytes reach a model and come back?

`base` is the protocol; `http` speaks HTTP/1.1 with hosts, `llama` starts a model of our own and speaks with it,
`replay` plays recorded answers. Words: a *transport* sends an outbound request to a *host*; an *inbound* is the
answer under way; a *sink* listens to it. A transport knows nothing of dialects, money or retries by the relay:
it moves bytes, keeps deadlines and says how an answer ended.
"""

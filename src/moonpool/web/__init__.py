"""What a socket sees: the server's side of HTTP, and the routes on it.

`head` and `body` read requests (pure), `protocol` is one client's connection, `answer` writes its answers,
`listener` owns the sockets and the clock. This room knows no model, no price and no host; it hands a
`words.Arrival` and a `relay.writer.Writer` to whoever was given as handler.
"""

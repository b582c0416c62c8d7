"""WHERE IT IS REMEMBERED: accounts, keys, holds and money for good, leases and reasoning for a while.

Words: the *store* is one database with *books* (holds, resolutions, transfers, balances) and *keys* (with their
accounts) and perhaps a *vault* (thoughts: sealed reasoning, and the marks that find it); the *limiter* counts what
runs now and may be lost. `base.py` has the protocols; nothing outside this room knows more than those, but for
`app.py`, which chooses. Ids, times and amounts are made above the store.

Lost limits restart; money does not move.
"""

"""WHO MAY, AND WHAT IT COSTS: keys, money and entries, as pure functions.

Words: a *key* is what a client shows, its *digest* all that we keep of it; an *account* owns keys and funds; a
*hold* sets money aside before a dispatch, its *resolution* says how that ended; a *transfer* moves an amount from one
ledger account to another, so every leg has its opposite. No I/O, no clock, no randomness: they are arguments.
"""

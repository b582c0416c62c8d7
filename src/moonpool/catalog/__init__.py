"""WHAT CAN BE ASKED FOR: models, hosts, prices, rules and weights, as data, and one loader.

Words: a *model* is a name that clients ask for, with what it can, what it costs and the rules of its fields; a *host*
is where models are served and who we are there; a *target* is a model at a host; *weights* are a file that the
embedded model runs on. Names of models, of providers and prices live in the TOML files of this room and nowhere else.
The operator's `[hosts.*]` and `[models.*]` are laid over them by key. No I/O but reading those files, no clock.
"""

from moonpool.catalog.weights import Source, Weights, weights_rows

__all__ = ["Source", "Weights", "weights_rows"]

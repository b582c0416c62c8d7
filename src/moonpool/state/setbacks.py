"""What becomes of two batches, the one that was to be written and the one that has collected meanwhile, when the first
was not: what is kept for the next try, and who is refused. Decided in memory; nothing here waits.
"""

from __future__ import annotations

from typing import Any

from moonpool.later import Later
from moonpool.state.base import Resolution
from moonpool.state.groupcommit import Batch, both
from moonpool.state.tally import Entry, Tally
from moonpool.words import Usage

Refused = list[Later[Any]]


def kept(tally: Tally, batch: Batch, following: Batch) -> tuple[Batch, Refused]:
    """Nothing of either was written: what must still be (resolutions, with their holds where those are not written
    either, and how far streams have come), and who is to be told that the rest was undone."""
    again, refused = Batch(), _without_answers(batch, following)
    again.dirty = tally.dirty = both(batch, following)
    for entry in batch.held + following.held:
        if entry.resolution is None:
            tally.undo_hold(entry)
        else:
            again.held.append(entry)
    again.resolved = batch.resolved + following.resolved
    alive = {entry.seq for entry in tally.open.values()}
    known = dict(batch.progress + following.progress)  # the newest of each
    again.progress = [(seq, row) for seq, row in known.items() if seq in alive]
    for booked in reversed(batch.booked + following.booked):
        booked.undo()
    return again, refused


def doubted(batch: Batch) -> Refused:
    """Nobody knows whether `batch` was written: who waits is refused, and nothing is undone."""
    return _without_answers(batch)


def unused(batch: Batch) -> list[Resolution]:
    """It was written after all: how holds end that were refused meanwhile, so that nobody dispatched anything."""
    return [
        Resolution(
            entry.hold.id, "voided", Usage(), 0, 0, entry.hold.host, "platform.storage", 0, entry.hold.created_at
        )
        for entry in batch.held
        if entry.answer is None and entry.resolution is None
    ]


def without(tally: Tally, batch: Batch, following: Batch, ids: set[str]) -> tuple[Batch, Refused]:
    """Nothing of `batch` was written, because these ids had been used before this process began: all but what has
    them, and who is to be told so."""
    again, refused = Batch(), Refused()
    again.dirty = tally.dirty = both(batch, following)
    repeated = [entry for entry in batch.held if entry.hold.id in ids]
    for entry in repeated:
        if entry.answer is not None:
            refused.append(entry.answer)
        if entry.resolution is not None:
            tally.undo_resolution(entry)
            if entry.answered is not None:
                refused.append(entry.answered)
            entry.answered = None
        tally.undo_hold(entry)
    again.held = _others(batch.held, repeated) + following.held
    again.resolved = _others(batch.resolved + following.resolved, repeated)
    again.booked = batch.booked + following.booked
    again.progress = batch.progress + following.progress
    return again, refused


def _others(entries: list[Entry], repeated: list[Entry]) -> list[Entry]:
    gone = set(map(id, repeated))
    return [entry for entry in entries if id(entry) not in gone]


def _without_answers(*batches: Batch) -> Refused:
    """Who waits for holds and bookings; from now on nobody does."""
    refused: Refused = []
    for batch in batches:
        for entry in batch.held:
            if entry.answer is not None:
                refused.append(entry.answer)
                entry.answer = None
        for booked in batch.booked:
            refused.append(booked.answer)
            booked.answer = Later()
    return refused

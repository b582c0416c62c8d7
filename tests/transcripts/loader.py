"""Recorded answers of hosts, and what must come of them: read from the folders beside this file.

A folder is `<dialect of the host>/<what it shows>/` and holds, as text to be read by people:

    about.md          one sentence or two: what this shows, where it comes from; `Form: canonical.` where building the
                      answer from its events must give the host's own bytes again
    request.json      what the client sent
    response.http     what the host answered: head, empty line, body, with the transfer coding removed
    events.json       what the decoder must make of it, one event a line
    client.deepseek   what a client of that dialect must receive, byte for byte, where host and client are of one family
    client.built      the same where the bytes are built from events, if that differs
    usage.json        the tokens that must be counted, null where the host gave none that can be right

A host that answers in several passes has other files (no response.http) and its own reader.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Transcript:
    dialect: str
    name: str
    canonical: bool
    request: bytes
    status: int
    headers: dict[str, str]
    body: bytes
    events: list[Any]
    client: bytes
    built: bytes | None
    usage: dict[str, Any] | None

    @property
    def operation(self) -> str:
        return "completion" if "prompt" in json.loads(self.request) else "chat"


def load(folder: Path) -> Transcript:
    head, _, body = (folder / "response.http").read_bytes().partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    fields = [line.split(": ", 1) for line in lines]
    built = folder / "client.built"
    return Transcript(
        dialect=folder.parent.name,
        name=folder.name,
        canonical="Form: canonical." in (folder / "about.md").read_text(encoding="utf-8"),
        request=(folder / "request.json").read_bytes(),
        status=int(first.split()[1]),
        headers={name.lower(): value for name, value in fields},
        body=body,
        events=json.loads((folder / "events.json").read_text(encoding="utf-8")),
        client=(folder / "client.deepseek").read_bytes(),
        built=built.read_bytes() if built.exists() else None,
        usage=json.loads((folder / "usage.json").read_text(encoding="utf-8")),
    )


def transcripts() -> list[Transcript]:
    return [load(response.parent) for response in sorted(HERE.glob("*/*/response.http"))]

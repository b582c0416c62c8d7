"""What does a GGUF file say about itself? Its header, read without loading anything.

Rules: bounded reading of an untrusted file; what is not a GGUF raises ValueError with a sentence for the operator.
Source: the GGUF specification of the ggml project (little endian, versions 2 and 3).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from msgspec import Struct

_MAGIC: Final = b"GGUF"
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING: Final = 8
_ARRAY: Final = 9
_KEYS_MAX: Final = 4096
_TEXT_BYTES_MAX: Final = 1 << 20
_ITEMS_MAX: Final = 1 << 22


class Facts(Struct, frozen=True):
    """`context` in tokens (0 where the file does not say); `thinks`: its chat template knows `<think>`."""

    name: str
    architecture: str
    context: int
    template: str
    thinks: bool
    bytes: int


def read_facts(path: Path) -> Facts:
    """Raises ValueError for a file that is no readable GGUF, OSError for one that cannot be opened."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise ValueError(f"{path} is no GGUF file")
        try:
            found = _read(file)
        except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: its header cannot be read ({error!r})") from None
    architecture = str(found.get("general.architecture", ""))
    template = str(found.get("tokenizer.chat_template", ""))
    context = found.get(f"{architecture}.context_length", 0)
    return Facts(
        name=str(found.get("general.name") or path.stem),
        architecture=architecture,
        context=context if isinstance(context, int) else 0,
        template=template,
        thinks="<think>" in template,
        bytes=path.stat().st_size,
    )


def _read(file: BinaryIO) -> dict[str, Any]:
    version, _, keys = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version} is not known")
    found: dict[str, Any] = {}
    for _ in range(min(keys, _KEYS_MAX)):
        key = _text(file).decode()
        (kind,) = struct.unpack("<I", file.read(4))
        value = _value(file, kind)
        if value is not None:
            found[key] = value
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file).decode("utf-8", "replace")
    if kind == _ARRAY:
        _skip_array(file)
        return None
    form = _SCALARS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _text(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _TEXT_BYTES_MAX:
        raise ValueError("a text in the header is too long")
    return file.read(length)


def _skip_array(file: BinaryIO) -> None:
    kind, items = struct.unpack("<IQ", file.read(12))
    if items > _ITEMS_MAX:
        raise ValueError("a list in the header is too long")
    if kind == _STRING:
        for _ in range(items):
            _text(file)
    elif kind == _ARRAY:
        for _ in range(items):
            _skip_array(file)
    else:
        file.seek(struct.calcsize(_SCALARS[kind]) * items, 1)

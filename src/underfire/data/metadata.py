"""What an image file says besides its picture, taken out of it where it cannot be parsed.

plain = without_metadata(Path("photo.jpg"))      # bytes of a JPEG or PNG with its orientation and pixels alone
"""

import zlib
from pathlib import Path

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_KEPT_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_START_OF_SCAN = 0xDA
_APPLICATION, _COMMENT, _ADOBE = range(0xE0, 0xF0), 0xFE, 0xEE


def without_metadata(path: Path) -> bytes | None:
    """The file with nothing in it but what its picture is made of and an intact orientation; None for other formats."""
    with path.open("rb") as file:
        start = file.read(len(_PNG))
        if not start.startswith((_PNG, _JPEG)):
            return None
        data = start + file.read()
    return _plain_png(data) if start == _PNG else _plain_jpeg(data)


def _plain_png(data: bytes) -> bytes:
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        length, name = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        end = place + 12 + length
        intact = data[end - 4 : end] == zlib.crc32(data[place + 4 : end - 4]).to_bytes(4)
        if name in _KEPT_CHUNKS or (name == b"eXIf" and intact):
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _plain_jpeg(data: bytes) -> bytes:
    """Without application segments and comments, but for EXIF's and Adobe's."""
    kept, place = [_JPEG], len(_JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        marker, end = data[place + 1], place + 2 + int.from_bytes(data[place + 2 : place + 4])
        exif = marker == _APPLICATION[1] and data[place + 4 : place + 10] == b"Exif\0\0"
        if marker not in (*_APPLICATION, _COMMENT) or marker == _ADOBE or exif:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])

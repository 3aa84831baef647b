"""The text of a file: decompressed and decoded where nothing can be lost, else refused with what to type."""

import bz2
import codecs
import gzip
import lzma
import re
import shlex
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from galpaca.errors import SHOWN_PROBLEMS, InputError, Problems, first_line
from galpaca.shell import python_line

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")

# By how UTF-16 and UTF-32 begin; the longer marks first, since one begins like the other.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEVERAL_BYTES = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_SAMPLE_BYTES = 4_096

# Decodes what is not UTF-8 as Windows-1252, and the rest as UTF-8.
_MIXED = (
    "import codecs, sys; codecs.register_error('1252', lambda e: (e.object[e.start:e.end].decode('cp1252'), e.end)); "
    "open(sys.argv[2], 'wb').write(open(sys.argv[1], 'rb').read().decode('utf-8', '1252').encode())"
)


def decompressed(content: bytes, path: Path) -> bytes:
    """The content of a compressed file, whatever its name says; any other content as it is.

    Raises:
        InputError: the compressed data is damaged or incomplete.
    """
    for start, decompress in _DECOMPRESSORS.items():
        if content.startswith(start):
            try:
                return decompress(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                what = f"cannot decompress the file: {first_line(error)}"
                raise InputError(what, where=path, fix="copy or download it again") from None
    return content


# Programs that unpack what begins so.
_UNPACK = {b"\x1f\x8b": "gzip -dc", b"\x28\xb5\x2f\xfd": "zstd -dc", b"BZh": "bzip2 -dc", b"\xfd7zXZ\x00": "xz -dc"}


def _zstd(content: bytes) -> bytes:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
        return bytes(stream.read())


_DECOMPRESSORS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}


def decode(content: bytes, path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 that says so; a byte order mark is left out.

    Raises:
        InputError: every byte that is not UTF-8.
    """
    for mark, encoding in _WIDE:
        if content.startswith(mark):
            return _wide(content, encoding, path)
    begins = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    bad_offsets: list[int] = []

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        bad_offsets.append(begins + error.start)
        return "", error.end

    codecs.register_error("galpaca.note", note)
    text = content[begins:].decode("utf-8", "galpaca.note")
    refuse_bytes(content, bad_offsets, path)
    return text


def refuse_bytes(content: bytes, bad_offsets: Sequence[int], path: Path) -> None:
    """Raises what is to be said of bytes that are not UTF-8, if there are any.

    Args:
        bad_offsets: where they are in ``content``.

    Raises:
        InputError: every such byte, with its line.
    """
    if not bad_offsets:
        return
    why, fix = _advice(content, bad_offsets[0], path)
    with Problems() as problems:
        for offset in bad_offsets[:SHOWN_PROBLEMS]:
            line = content.count(b"\n", 0, offset) + 1
            what = f"byte 0x{content[offset]:02x} at byte offset {offset} is not UTF-8"
            problems.add(what, where=f"{path}, line {line}", why=why, fix=fix)
        problems.count = len(bad_offsets)


def _wide(content: bytes, encoding: str, path: Path) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"byte offset {error.start} is not {encoding.upper()}, which the file begins as: {error.reason}"
        raise InputError(what, where=path, fix="write the file again as UTF-8") from None


def _advice(content: bytes, first: int, path: Path) -> tuple[str, str]:
    """Why the file is not UTF-8, as far as its bytes say, and a command that keeps every character."""
    source, target = shlex.quote(str(path)), shlex.quote(str(beside(path, "utf8")))
    then = f"`; then use {beside(path, 'utf8')}"
    sample = content[:_SAMPLE_BYTES]
    for at, order in ((1, "LE"), (0, "BE")):
        if sample and sample[at::2].count(0) > len(sample) // 4:
            return f"it is UTF-16{order}", f"`iconv -f UTF-16{order} -t UTF-8 {source} > {target}{then}"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        is_western = False
    else:
        is_western = True
    if _SEVERAL_BYTES.search(content):
        if is_western or content[first : first + 1].decode("cp1252", "ignore"):
            fix = f"`{python_line(_MIXED, path, beside(path, 'utf8'))}{then}, and check these places"
            return "the rest of the file is UTF-8, and these bytes may be Windows-1252", fix
        return "the rest of the file is UTF-8", "replace these bytes, which are no characters"
    if is_western:
        why = "it looks like Windows-1252, as office programs write it in the west"
        return why, f"`iconv -f CP1252 -t UTF-8 {source} > {target}{then}, and check a few of its letters"
    return "", "write the file again as UTF-8, in the program that made it"


def plain_copy(content: bytes, path: Path) -> tuple[str, Path] | None:
    """A command that writes a file's text without compression and as UTF-8, and the path of that copy; None for a file
    that other programs can read as it is.

    Args:
        content: as it stands in the file.
    """
    steps = [step for start, step in _UNPACK.items() if content.startswith(start)]
    if any(decompressed(content, path).startswith(mark) for mark, _ in _WIDE):
        steps.append("iconv -f UTF-16 -t UTF-8")
    if not steps:
        return None
    target = beside(path, "plain")
    return f"cat {shlex.quote(str(path))} | {' | '.join(steps)} > {shlex.quote(str(target))}", target


def beside(path: Path, word: str, suffix: str | None = None) -> Path:
    """The path of a changed copy: its name has a word more, and says no compression any longer."""
    names = path.name
    for compressed in COMPRESSED:
        names = names.removesuffix(compressed)
    name = Path(names)
    return path.with_name(f"{name.stem}-{word}{suffix or name.suffix}")

"""Mutated uploads through the whole app: real decoders, a toy model. ``make fuzz``.

Case ``number`` of a seed is always the same, so a child process that crashes, hangs or grows
names it by its number, and the parent writes the input down and goes on behind it.
"""

from __future__ import annotations

import argparse
import base64
import faulthandler
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any

import numpy as np
from PIL import Image

from pictures import chunk, encode, picture, png

ROOT = Path(__file__).parent.parent
STATUSES = {200, 400, 413, 415, 422}
PROBLEM = ["type", "title", "status", "code", "detail"]
INTERESTING = (0, 1, 2, 3, 7, 8, 9, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536,
               2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)  # fmt: skip


# What is mutated: every format, in as many of its kinds as we can write.


def _photo(width: int = 40, height: int = 30) -> Image.Image:
    """A ramp with noise: runs, edges and full histograms in one picture."""
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 4)[..., None] + [0, 40, 80]
    noise = np.random.default_rng(1).integers(0, 40, (height, width, 3))
    return Image.fromarray(((ramp + noise) % 256).astype(np.uint8))


def _jpegs() -> Iterator[bytes]:
    photo, exif = _photo(), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Somebody's camera"
    yield encode(photo, "JPEG")
    yield encode(photo, "JPEG", progressive=True, optimize=True)
    yield encode(photo, "JPEG", subsampling=0, restart_marker_blocks=2)
    yield encode(photo, "JPEG", exif=exif, icc_profile=bytes(300), xmp=b"<x/>", comment=b"hello")
    yield encode(photo.convert("L"), "JPEG")
    yield encode(photo.convert("CMYK"), "JPEG", progressive=True)
    yield encode(photo, "MPO", save_all=True, append_images=[photo])


def _pngs() -> Iterator[bytes]:
    photo = _photo()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield encode(photo.convert("L").convert(mode) if mode == "I;16" else photo.convert(mode))
    yield encode(photo.quantize(16), transparency=bytes(range(16)))
    yield encode(photo, transparency=(1, 2, 3), icc_profile=bytes(300), exif=b"MM\0*\0\0\0\x08")
    yield encode(photo, save_all=True, append_images=[photo.rotate(180)])
    palette, key = chunk(b"PLTE", bytes(range(48))), chunk(b"tRNS", b"\0\1")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(5000)))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(5000)))
    size = (33, 17)
    yield png(size, 16, 2, _rows(size, 48))
    yield png(size, 8, 2, _rows(size, 24, ADAM7), text, interlaced=1)
    yield png(size, 4, 3, _rows(size, 4), palette, key)
    yield png(size, 2, 0, _rows(size, 2), key)
    yield png(size, 16, 6, _rows(size, 64, ADAM7), profile, interlaced=1)


WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip


def _rows(size: tuple[int, int], bits: int, passes: Sequence[tuple[int, ...]] = WHOLE) -> bytes:
    """A PNG's rows of noise, with every filter."""
    rng, rows = random.Random(bits), []
    for x, y, step_x, step_y in passes:
        stride = (len(range(x, size[0], step_x)) * bits + 7) // 8
        count = len(range(y, size[1], step_y))
        rows += [bytes([row % 5]) + rng.randbytes(stride) for row in range(count)]
    return b"".join(rows)


def _tiffs() -> Iterator[bytes]:
    photo = _photo()
    kinds = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")
    for compression in kinds:
        yield encode(photo, "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield encode(photo.convert("1"), "TIFF", compression=compression)
    for mode in ("L", "P", "RGBA", "CMYK", "I", "F", "LAB"):
        yield encode(photo.convert("L").convert(mode) if mode in "IF" else photo.convert(mode)
                     if mode != "LAB" else Image.new("LAB", (9, 9)), "TIFF")  # fmt: skip
    yield encode(photo, "TIFF", big_tiff=True)
    yield encode(photo, "TIFF", save_all=True, append_images=[photo], strip_size=200)


def _others() -> Iterator[bytes]:
    photo = _photo()
    more = {"save_all": True, "append_images": [photo.rotate(180)]}
    yield encode(photo, "WEBP")
    yield encode(photo, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08", xmp=b"<x/>")
    yield encode(photo.convert("RGBA"), "WEBP", quality=50)
    yield encode(photo, "WEBP", **more)
    yield encode(photo, "GIF", comment=b"hello")
    yield encode(photo, "GIF", interlace=0, **more)
    yield encode(photo, "AVIF", speed=10)
    yield encode(photo, "AVIF", speed=10, quality=30, **more)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield encode(photo.convert(mode), "BMP")
    yield _run_length_bmp()
    for mode in ("1", "L", "RGB", "F", "I;16"):
        image = photo.convert("L").convert(mode) if mode in ("F", "I;16") else photo.convert(mode)
        yield encode(image, "PPM")
    yield b"P3 4 2 100\n# text\n" + b"1 22 100 " * 8
    yield b"P5 4 4 100\n" + bytes(range(16))


def _run_length_bmp() -> bytes:
    rows = (b"\x05\x01\x00\x03\x02\x03\x04\x00" + b"\x00\x00") * 7 + b"\x00\x02\x01\x01\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = struct.pack("<2sIHHI", b"BM", 54 + 1024 + len(rows), 0, 0, 54 + 1024)
    return start + header + bytes(range(256)) * 4 + rows


@cache
def originals() -> tuple[bytes, ...]:
    """The files that are mutated."""
    return (*_jpegs(), *_pngs(), *_tiffs(), *_others())


# How: without knowledge of the format, and with it.


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))


def renumber(rng: random.Random, data: bytearray) -> None:
    """A number somewhere becomes one at which arithmetic breaks; often in the header."""
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    end = len(data) - struct.calcsize(kind)
    if end < 0:
        return
    place = rng.randrange(min(end, 64) + 1) if rng.random() < 0.5 else rng.randrange(end + 1)
    value = rng.choice(INTERESTING) & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    struct.pack_into(kind, data, place, value)


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def remove(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 64, 1024))]


def repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((1, 4, 12, 64, 256))]
    data[start:start] = part * rng.choice((1, 2, 50))


def splice(rng: random.Random, data: bytearray) -> None:
    """The rest is another file's."""
    other = rng.choice(originals())
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


BLIND = (flip, overwrite, renumber, cut, remove, repeat, splice)
ANYWHERE = (flip, overwrite, renumber, repeat, remove)


def rechunk(rng: random.Random, data: bytearray) -> None:
    """A PNG's chunks change and have the right checksum, so that the parser behind it is met."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append([data[place + 4 : place + 8], data[place + 8 : place + 8 + length]])
        place += 12 + length
    if not chunks:
        return
    _reorder(rng, chunks)
    kind, content = chunks[rng.randrange(len(chunks))]
    if kind == b"IDAT" and rng.random() < 0.7:
        _recompress(rng, content)
    elif content:
        rng.choice(ANYWHERE)(rng, content)
    data[8:] = b"".join(chunk(bytes(k), bytes(c)) for k, c in chunks)


def _reorder(rng: random.Random, parts: list[Any]) -> None:
    choice, index = rng.random(), rng.randrange(len(parts))
    if choice < 0.1 and len(parts) > 1:
        del parts[index]
    elif choice < 0.2:
        parts.insert(rng.randrange(len(parts)), parts[index])
    elif choice < 0.3:
        rng.shuffle(parts)


def _recompress(rng: random.Random, content: bytearray) -> None:
    try:
        rows = bytearray(zlib.decompress(content))
    except zlib.error:
        return
    if rows:
        rng.choice(BLIND[:-1])(rng, rows)
    content[:] = zlib.compress(bytes(rows), 1)


def resegment(rng: random.Random, data: bytearray) -> None:
    """A JPEG's segment changes and has the right length."""
    starts, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        starts.append(place)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if not starts:
        return
    start = rng.choice(starts)
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    content = data[start + 4 : start + 2 + length]
    if content:
        rng.choice(ANYWHERE)(rng, content)
    segment = data[start : start + 2] + (len(content) + 2).to_bytes(2, "big") + content
    data[start : start + 2 + length] = segment * rng.choice((1, 1, 1, 2, 20))


def reriff(rng: random.Random, data: bytearray) -> None:
    """WebP's chunks change and have the right length, and so has the file."""
    chunks, place = [], 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        chunks.append([data[place : place + 4], data[place + 8 : place + 8 + length]])
        place += 8 + length + length % 2
    if not chunks:
        return
    _reorder(rng, chunks)
    content = chunks[rng.randrange(len(chunks))][1]
    if content:
        rng.choice(ANYWHERE)(rng, content)
    body = b"".join(
        bytes(k) + struct.pack("<I", len(c)) + bytes(c) + bytes(len(c) % 2) for k, c in chunks
    )
    data[4:] = struct.pack("<I", len(body) + 4) + b"WEBP" + body


def retag(rng: random.Random, data: bytearray) -> None:
    """A field of one entry of a TIFF's directory changes."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    if place + 2 > len(data):
        return
    (count,) = struct.unpack_from(order + "H", data, place)
    entry = place + 2 + 12 * rng.randrange(max(1, count))
    if entry + 12 > len(data):
        return
    offset, kind = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    value = rng.choice((*INTERESTING, *range(254, 350), rng.randrange(len(data))))
    struct.pack_into(
        order + kind, data, entry + offset, value & (2 ** (16 if kind == "H" else 32) - 1)
    )


Mutation = Callable[[random.Random, bytearray], None]
AWARE: dict[bytes, Mutation] = {
    b"\x89PNG": rechunk, b"\xff\xd8": resegment, b"RIFF": reriff, b"II*\0": retag, b"MM\0*": retag,
}  # fmt: skip


def mutate(rng: random.Random, original: bytes) -> bytes:
    """The file after one to four mutations."""
    data = bytearray(original)
    aware = [do for signature, do in AWARE.items() if original.startswith(signature)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            known = aware and len(data) > 16 and rng.random() < 0.6
            (aware[0] if known else rng.choice(BLIND))(rng, data)
    return bytes(data)


# Requests around them.


@dataclass
class Case:
    """One request: the body and what else the test client is told."""

    body: bytes
    content_type: str | None = None
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def case(seed: int, number: int) -> Case:
    """Case ``number`` of a seed: mostly a mutated image, every tenth in a mutated wrapping."""
    rng = random.Random(f"{seed}/{number}")
    image = mutate(rng, rng.choice(originals()))
    if number % 10:
        return Case(image, rng.choice((None, "image/jpeg", "application/octet-stream")))
    wrapped = rng.choice((_as_form, _as_json, _as_urlencoded))(rng, image)
    body = bytearray(wrapped.body)
    if rng.random() < 0.7:
        rng.choice(BLIND)(rng, body)
    wrapped.body = bytes(body)
    wrapped.query = rng.choice(
        ("", "top_k=2", "top_k=%00", "top_k=9&top_k=1", "top_k=-1", "%ff&&=")
    )
    if rng.random() < 0.2:
        wrapped.headers["Content-Length"] = rng.choice(
            ("0", "7", str(len(body) + 9), "x", "-1", "9" * 30)
        )
    if rng.random() < 0.1:
        wrapped.headers["Content-Encoding"] = rng.choice(("gzip", "identity", "", "br, gzip"))
    if rng.random() < 0.2:
        mangled = bytearray((wrapped.content_type or "x").encode())
        rng.choice(BLIND[:-1])(rng, mangled)
        printable = mangled.decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "")
        wrapped.content_type = printable
    return wrapped


def _as_form(rng: random.Random, image: bytes) -> Case:
    name = rng.choice(("file", "image", "images", "x", ""))
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"'.encode()
    parts = [head + rng.choice((b'; filename="p.jpg"', b"")) + b"\r\n\r\n" + image + b"\r\n"]
    return Case(b"".join(parts * rng.choice((1, 1, 2, 70))) + b"--b--\r\n",
                "multipart/form-data; boundary=b")  # fmt: skip


def _as_json(rng: random.Random, image: bytes) -> Case:
    text = base64.b64encode(image).decode()
    content = rng.choice(({"image": text}, {"images": [text, 1, None]}, [text], {"image": [text]},
                          {"image": "data:image/png;base64," + text}))  # fmt: skip
    return Case(json.dumps(content).encode(), "application/json")


def _as_urlencoded(rng: random.Random, image: bytes) -> Case:
    text = base64.b64encode(image)
    return Case(b"image=" + text, "application/x-www-form-urlencoded")


# The rules.


def complaint(response: Any) -> str | None:
    """What is wrong with an answer, whatever was asked; None when nothing is."""
    if response.status_code not in STATUSES:
        return f"status {response.status_code}"
    body = response.get_json(silent=True)
    if not isinstance(body, dict):
        return "no JSON"
    if response.status_code != 200:
        fits = list(body) == PROBLEM and body["status"] == response.status_code
        return None if fits and body["detail"] else f"no problem details: {body}"
    results = body.get("results", [body])
    good = all({"class_id", "class_name"} <= r.keys() or list(r) == ["error"] for r in results)
    inner = {r["error"]["status"] for r in results if "error" in r}
    return None if good and inner <= STATUSES else f"no answer: {body}"


def ask(client: Any, one: Case) -> Any:
    """Send a case through the app."""
    environ = (
        {"CONTENT_LENGTH": one.headers["Content-Length"]} if "Content-Length" in one.headers else {}
    )
    headers = {name: value for name, value in one.headers.items() if name != "Content-Length"}
    return client.post(
        f"/predict?{one.query}", input_stream=io.BytesIO(one.body),
        environ_overrides={"CONTENT_LENGTH": str(len(one.body)), **environ},
        content_type=one.content_type, headers=headers,
    )  # fmt: skip


def child(seed: int, first: int, end: int, limit_s: float) -> None:
    """Run the cases and print a line before and after each."""
    from app import create_app
    from conftest import toy_engine
    from predictor.classifier import Classifier
    from predictor.settings import Settings

    faulthandler.enable()
    classifier = Classifier(Settings(), load=lambda _: toy_engine())
    classifier.start()
    classifier.loading.result()
    client = create_app(classifier.settings, classifier).test_client()
    for number in range(first, end):
        one = case(seed, number)
        print("begin", number, flush=True)
        faulthandler.dump_traceback_later(10 * limit_s, exit=True)
        begin = process_time()  # of the processors: the machine may have other things to do
        response = ask(client, one)
        seconds, wrong = process_time() - begin, complaint(response)
        if wrong is None and number % 50 == 0:
            wrong = _good_photo_fails(client, number)
        print("end", response.status_code, f"{seconds:.4f}", _rss_kb(), wrong or "", flush=True)


def _good_photo_fails(client: Any, number: int) -> str | None:
    colour = ("red", "green", "blue")[number // 50 % 3]
    answer = client.post("/predict", data=picture(colour)).get_json()
    return None if answer.get("class_name") == f"{colour}_thing" else f"then {colour}: {answer}"


def _rss_kb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass
class Report:
    """What became of the cases."""

    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    memory_kb: list[int] = field(default_factory=list)  # after each case
    slowest: tuple[float, int] = (0.0, 0)

    def growth(self, warm_up: int) -> float:
        """How much the memory grew from the warm-up to the end, each as a median over cases."""
        sample = max(1, len(self.memory_kb) // 20)
        start = median(self.memory_kb[warm_up : warm_up + sample])
        return median(self.memory_kb[-sample:]) / start - 1


def fuzz(seed: int, count: int, limit_s: float, progress: Callable[[int], object] = id) -> Report:
    """Run ``count`` cases in child processes; a crash or a hang is a finding and costs a child."""
    report, number = Report(), 0
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    while number < count:
        command = [sys.executable, __file__, "--child", *map(str, (seed, number, count, limit_s))]
        with tempfile.TemporaryFile("w+") as words:  # libtiff's too, a line for each bad file
            pipes = {"stdout": subprocess.PIPE, "stderr": words}
            with subprocess.Popen(command, text=True, env=environ, **pipes) as process:
                last = _follow(process, report, limit_s, progress)
            if process.returncode != 0:
                words.seek(0)
                tail = words.read()[-2000:]
                if last is None:
                    raise RuntimeError(tail)
                report.findings.append((last, f"ends the process ({process.returncode}):\n{tail}"))
        number = count if last is None else last + 1
    return report


def _follow(
    process: subprocess.Popen[str],
    report: Report,
    limit_s: float,
    progress: Callable[[int], object],
) -> int | None:
    """Read the child's lines to its end; the number of the case it was at, if it was at any."""
    assert process.stdout is not None
    last = None
    for line in process.stdout:
        kind, *rest = line.split(maxsplit=4)
        if kind == "begin":
            last = int(rest[0])
        elif last is not None:
            _note(report, last, rest, limit_s)
            progress(last)
    return last


def _note(report: Report, number: int, line: list[str], limit_s: float) -> None:
    status, seconds, memory_kb, *wrong = line
    report.statuses[int(status)] += 1
    report.memory_kb.append(int(memory_kb))
    report.slowest = max(report.slowest, (float(seconds), number))
    if float(seconds) > limit_s:
        report.findings.append((number, f"takes {seconds} s"))
    if wrong:
        report.findings.append((number, wrong[0].strip()))


def main() -> None:
    """Fuzz, print the figures, save what broke a rule, and fail if anything did."""
    parser = argparse.ArgumentParser(prog="make fuzz", description='FUZZ="--images 100000"')
    parser.add_argument("--images", type=int, default=20_000, help="how many (default: 20,000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--limit", type=float, default=5.0, help="seconds one may take")
    parser.add_argument("--output", type=Path, default=ROOT / "fuzz-findings")
    options = parser.parse_args()
    begin = monotonic()

    def progress(number: int) -> None:
        if (number + 1) % 5000 == 0:
            print(f"{number + 1:,} …", file=sys.stderr)

    report = fuzz(options.seed, options.images, options.limit, progress)
    _print(report, options, monotonic() - begin)
    for number, _ in report.findings:
        options.output.mkdir(exist_ok=True)
        (options.output / f"{options.seed}-{number}.bin").write_bytes(
            case(options.seed, number).body
        )
    sys.exit(bool(report.findings))


def _print(report: Report, options: argparse.Namespace, seconds: float) -> None:
    count, memory = sum(report.statuses.values()), [kb / 1000 for kb in report.memory_kb]
    print(f"{count:,} inputs, seed {options.seed}, {seconds:.0f} s, {count / seconds:.0f} a second")
    print("status: ", ", ".join(f"{s} × {n:,}" for s, n in sorted(report.statuses.items())))
    tenths = [memory[count * i // 10 : count * (i + 1) // 10] or [0] for i in range(10)]
    print(f"memory:  {memory[0]:.0f} MB at first, {memory[-1]:.0f} at the end, {max(memory):.0f} at"
          f" most; medians of the tenths {', '.join(f'{median(t):.0f}' for t in tenths)}")  # fmt: skip
    print(f"slowest: number {report.slowest[1]}, {report.slowest[0]:.2f} s")
    for number, finding in report.findings:
        print(f"FINDING: number {number} {finding}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*map(int, sys.argv[2:5]), limit_s=float(sys.argv[5]))
    else:
        main()

"""Send mutated uploads through the whole app, with real decoders and a toy model: ``make fuzz``.

Every tenth case also compares our parser of forms with werkzeug's, on a valid form. The same seed
and number always make the same case. Child processes run the cases and print their
numbers. If a child crashes or hangs, the parent knows the case, saves it, and starts another child
with the next case.
"""

from __future__ import annotations

import argparse
import base64
import faulthandler
import io
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))  # for the pictures and the toy model

from pictures import picture  # noqa: E402
from tools import forms, mutations  # noqa: E402
from tools.originals import originals  # noqa: E402

STATUSES = {200, 400, 413, 415, 422}
PROBLEM = ["type", "title", "status", "code", "detail", "request_id"]
CHILD = [sys.executable, "-m", "tools.fuzz", "--child"]

# Build the requests.


@dataclass
class Case:
    """One request to ``/predict``."""

    body: bytes
    content_type: str | None = None
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def case(seed: int, number: int) -> Case:
    """Build a case: a mutated image. In every tenth case, a mutated form or JSON contains it."""
    rng = random.Random(f"{seed}/{number}")
    image = mutations.mutate(rng, rng.choice(originals()))
    if number % 10:
        return Case(image, rng.choice((None, "image/jpeg", "application/octet-stream")))
    wrapped = rng.choice((_as_form, _as_json, _as_urlencoded))(rng, image)
    body = bytearray(wrapped.body)
    if rng.random() < 0.7:
        rng.choice(mutations.BLIND)(rng, body)
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
        rng.choice(mutations.BLIND[:-1])(rng, mangled)
        printable = mangled.decode("latin-1").replace("\r", "").replace("\n", "").replace("\0", "")
        wrapped.content_type = printable
    return wrapped


def _as_form(rng: random.Random, image: bytes) -> Case:
    if rng.random() < 0.5:
        return Case(*forms.form(rng, image))
    name = rng.choice(("file", "image", "images", "x", ""))
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"'.encode()
    parts = [head + rng.choice((b'; filename="p.jpg"', b"")) + b"\r\n\r\n" + image + b"\r\n"]
    return Case(b"".join(parts * rng.choice((1, 1, 2, 70))) + b"--b--\r\n",
                "multipart/form-data; boundary=b")  # fmt: skip


def _as_json(rng: random.Random, image: bytes) -> Case:
    text = base64.b64encode(image).decode()
    content = rng.choice(({"image": text}, {"images": [text, 1, None]}, [text], {"image": [text]},
                          {"photo": {"src": text}, "top_k": 2}, {"data": text, "k": [1]}, text,
                          {"image": "data:image/png;base64," + text}))  # fmt: skip
    return Case(json.dumps(content).encode(), "application/json")


def _as_urlencoded(rng: random.Random, image: bytes) -> Case:
    text = base64.b64encode(image)
    return Case(b"image=" + text, "application/x-www-form-urlencoded")


# Check the answers.


def complaint(response: Any) -> str | None:
    """Return what is wrong with an answer. None: the answer is valid."""
    if response.status_code not in STATUSES:
        return f"status {response.status_code}"
    body = response.get_json(silent=True)
    if not isinstance(body, dict):
        return "not JSON"
    if response.status_code != 200:
        fits = list(body) == PROBLEM and body["status"] == response.status_code
        return None if fits and body["detail"] else f"not problem details: {body}"
    results = body.get("results", [body])
    good = all({"class_id", "class_name"} <= r.keys() or list(r) == ["error"] for r in results)
    inner = {r["error"]["status"] for r in results if "error" in r}
    return None if good and inner <= STATUSES else f"not an answer: {body}"


def ask(client: Any, one: Case) -> Any:
    """Send a case to the app and return its answer."""
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
    """Run the cases ``first`` to ``end`` - 1. Print a line before and after each case.

    If a case takes more than ten times ``limit_s`` seconds, the process ends.
    """
    from conftest import app_of
    from predictor.engine.classifier import Classifier
    from predictor.settings import Settings
    from toy import toy_model

    faulthandler.enable()
    classifier = Classifier(Settings(), load=lambda *_: toy_model())
    classifier.start()
    classifier.loading.result()
    client = app_of(classifier).test_client()
    for number in range(first, end):
        one = case(seed, number)
        print("begin", number, flush=True)
        faulthandler.dump_traceback_later(10 * limit_s, exit=True)
        begin = process_time()  # not the wall clock, because other programs may run
        response = ask(client, one)
        seconds, wrong = process_time() - begin, complaint(response)
        if wrong is None and number % 10 == 5:
            wrong = forms.disagreement(random.Random(f"{seed}/{number}/form"), one.body)
        if wrong is None and number % 50 == 0:
            wrong = _good_photo_fails(client, number)
        print("end", response.status_code, f"{seconds:.4f}", _rss_kb(), wrong or "", flush=True)


def _good_photo_fails(client: Any, number: int) -> str | None:
    colour = ("red", "green", "blue")[number // 50 % 3]
    answer = client.post("/predict", data=picture(colour)).get_json()
    return (
        None
        if answer.get("class_name") == f"{colour}_thing"
        else f"a {colour} photo after it: {answer}"
    )


def _rss_kb() -> int:
    return int(psutil.Process().memory_info().rss) // 1024


@dataclass
class Report:
    """The outcomes of the cases."""

    statuses: Counter[int] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    memory_kb: list[int] = field(default_factory=list)  # after each case
    slowest: tuple[float, int] = (0.0, 0)

    def growth(self, warm_up: int) -> float:
        """Return the growth of median memory after ``warm_up`` cases, as a fraction."""
        sample = max(1, len(self.memory_kb) // 20)
        start = median(self.memory_kb[warm_up : warm_up + sample])
        return median(self.memory_kb[-sample:]) / start - 1


def fuzz(seed: int, count: int, limit_s: float, progress: Callable[[int], object] = id) -> Report:
    """Run ``count`` cases in child processes. Report each crash or hang of a child as a finding.

    Raises:
        RuntimeError: a child ended before its first case.
    """
    report, number = Report(), 0
    while number < count:
        command = [*CHILD, *map(str, (seed, number, count, limit_s))]
        with tempfile.TemporaryFile(
            "w+"
        ) as log:  # a file: libtiff prints a line for each bad image
            pipes = {"stdout": subprocess.PIPE, "stderr": log}
            with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
                last = _follow(process, report, limit_s, progress)
            if process.returncode != 0:
                log.seek(0)
                tail = log.read()[-2000:]
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
    """Read what the child prints until it ends. Return the number of its last case, or None."""
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
    """Run the cases, print the figures, save the findings, and exit with 1 if there are any."""
    parser = argparse.ArgumentParser(prog="make fuzz", description='FUZZ="--images 100000"')
    parser.add_argument(
        "--images", type=int, default=20_000, help="number of images (default: 20,000)"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--limit", type=float, default=5.0, help="processor seconds for one image (default: 5)"
    )
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
    print(
        f"{count:,} inputs, seed {options.seed}, {seconds:.0f} s, {count / seconds:.0f} per second"
    )
    print("status: ", ", ".join(f"{s} × {n:,}" for s, n in sorted(report.statuses.items())))
    tenths = [memory[count * i // 10 : count * (i + 1) // 10] or [0] for i in range(10)]
    first, last, most = memory[0], memory[-1], max(memory)
    print(f"memory:  {first:.0f} MB at the start, {last:.0f} at the end, {most:.0f} at most")
    print(f"         medians of the tenths: {', '.join(f'{median(t):.0f}' for t in tenths)}")
    print(f"slowest: number {report.slowest[1]}, {report.slowest[0]:.2f} s")
    for number, finding in report.findings:
        print(f"FINDING: number {number} {finding}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*map(int, sys.argv[2:5]), limit_s=float(sys.argv[5]))
    else:
        main()

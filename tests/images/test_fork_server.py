"""The processes that decode images apart, and the fork server that starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from paths import ROOT
from pictures import encode
from predictor.errors import DamagedImage, OutOfTime, Overloaded, TooCostly, TooLarge
from predictor.images import sandbox
from predictor.images.decoding import decode
from predictor.images.sandbox import thread_seconds
from predictor.processes import is_running
from waiting import wait_until

LIMIT = 50_000_000
GOOD = encode(Image.new("RGB", (8, 8), "red"), "TIFF")
HANG = "lambda link: signal.pause()"


@pytest.fixture
def answering():
    """Start a fork server whose processes answer by a Python expression, with its imports."""

    def start(answer, before="pass"):
        sandbox.close()
        replaced = f"import os, signal; from predictor.images import fork_server; {before}"
        replaced += f"; fork_server._answer = {answer}; fork_server.serve()"
        patch.setattr(sandbox, "START", sandbox.START.split(" from")[0] + replaced)

    with pytest.MonkeyPatch.context() as patch:
        yield start
        for pid in children(fork_server()) if sandbox._server else []:
            os.kill(pid, signal.SIGKILL)
    sandbox.close()


def fork_server():
    """The pid of the fork server."""
    return sandbox._server[0].pid


def children(pid):
    """The pids of the running children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    "answer",
    [
        "lambda link: None",
        "lambda link: link._socket.sendall(b'HTTP/1.1 200 OK')",
        "lambda link: link._socket.sendall(bytes(2000))",
        "lambda link: link.send({})",
        "lambda link: link.send({'seconds': []})",
        "lambda link: link.send({'seconds': 1e-3}, [b'xxxx'])",
        "lambda link: link.send({'error': 'SystemExit', 'text': ''})",
        "lambda link: link.send({'mode': 'RGB', 'size': [9**9, 9**9], 'profile': 0})",
        "lambda link: link.send({'mode': 'RGB', 'size': [-1, -1], 'profile': 0}, [bytes(99)])",
        "lambda link: link.send({'mode': 'RGB', 'size': [2, 2], 'profile': -1}, [bytes(99)])",
        "lambda link: link.send({'mode': 'RGB', 'size': [2, 2], 'profile': 0}, [bytes(11)])",
        "lambda link: link.send({'mode': 'P', 'size': [2, 2], 'profile': 0}, [bytes(12)])",
        "lambda link: link._socket.sendall(b'\\0\\0\\x20\\0' + b'[' * 0x2000)",
        "lambda link: os.abort()",
    ],
)
def test_process_that_answers_garbage_is_a_damaged_image(answering, answer):
    answering(answer)
    with pytest.raises(DamagedImage, match="decoder failed"):
        decode(GOOD, LIMIT)


def test_hostile_profile_of_a_process_does_not_reach_little_cms(answering):
    answering(
        "lambda link: link.send({'mode': 'RGB', 'size': [2, 2], 'profile': 500},"
        " [b'\\xff' * 500, bytes(12)])"
    )
    assert decode(GOOD, LIMIT).info == {}


@pytest.mark.parametrize("ignores", [False, True], ids=["hangs", "ignores its timer"])
def test_process_that_hangs_is_overloaded(answering, monkeypatch, ignores):
    for name in ("WAIT_S", "WAIT_PER_CPU_S"):
        monkeypatch.setattr(sandbox, name, 0.01)
    monkeypatch.setattr(sandbox, "START_S", 1)
    wait = "signal.signal(14, signal.SIG_IGN), " if ignores else ""
    answering(f"lambda link: ({wait}signal.setitimer(0, 0.1), signal.sigwait([10]))")
    with pytest.raises(Overloaded, match="took too long"):
        decode(GOOD, LIMIT, most_s=1)


def test_process_that_is_killed_from_outside_is_overloaded(answering):
    answering(HANG)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(decode, GOOD, LIMIT)
        (pid,) = wait_until(lambda: sandbox._server and children(fork_server()))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Overloaded, match="system ended the decoding"):
            future.result(60)


def test_process_that_takes_too_long_is_out_of_time(answering):
    answering("lambda link: (fork_server.limit(1, 0.05, 60), [0 for _ in iter(int, 1)])")
    began = thread_seconds()
    with pytest.raises(OutOfTime, match=r"more than 0\.05 s of processor time"):
        decode(GOOD, LIMIT, most_s=0.05)
    assert 0.04 < thread_seconds() - began < 0.3


def test_fork_server_that_was_killed_is_started_again():
    decode(GOOD, LIMIT)
    first = fork_server()
    os.kill(first, signal.SIGKILL)
    assert decode(GOOD, LIMIT).size == (8, 8)
    assert fork_server() != first


def test_fork_server_that_cannot_start_is_overloaded(answering, capfd):
    answering("None", before="raise SystemExit('no')")
    with pytest.raises(Overloaded, match="cannot start a process"):
        decode(GOOD, LIMIT)
    assert "no" in capfd.readouterr().err


def test_refused_estimate_ends_the_process_before_it_decodes():
    def refuse(seconds):
        assert 0.003 < seconds < 1
        raise TooCostly("no")

    with pytest.raises(TooCostly, match="no"):
        decode(GOOD, LIMIT, charge=refuse)
    assert children(fork_server()) == []


def test_many_threads_get_their_own_pixels():
    colours = [(n * 20, 255 - n * 20, n) for n in range(12)]
    files = [encode(Image.new("RGB", (50, 40), colour), "TIFF") for colour in colours]
    with ThreadPoolExecutor(12) as pool:
        images = list(pool.map(lambda data: decode(data, LIMIT), files * 4))
    assert [image.getpixel((0, 0)) for image in images] == colours * 4
    assert children(fork_server()) == []


def test_processes_that_end_at_the_same_time_do_not_end_the_fork_server(answering, caplog):
    answering("lambda link: os._exit(7)")

    def end(_):
        with pytest.raises(DamagedImage):
            decode(GOOD, LIMIT)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(end, range(1000)))
    assert {*caplog.messages} == {"The process that decoded an image ended with exit code 7."}


def test_process_of_little_memory_refuses_the_image(answering):
    answering(
        "fork_server._answer",
        before="from PIL.TiffImagePlugin import TiffImageFile as Tiff;"
        "Tiff.load = lambda self: bytes(2**32)",
    )
    with pytest.raises(TooLarge, match="more memory"):
        decode(GOOD, LIMIT)


def test_process_opens_no_file_and_no_connection(answering, caplog):
    closing = "(os.close(1), open('/etc/passwd'))"
    for attempt in ("open('/etc/passwd')", closing, "__import__('socket').socket()"):
        answering(
            f"lambda link: (fork_server.limit(1, 9, 9), {attempt}, os._exit(7))",
        )
        with pytest.raises(DamagedImage):
            decode(GOOD, LIMIT)
        assert "exit code 1." in caplog.text
        assert "exit code 7." not in caplog.text


def test_fork_server_gets_no_variables_and_no_signals_of_the_terminal(monkeypatch):
    monkeypatch.setenv("PREDICTOR_TOKEN", "a-secret-token")
    sandbox.close()
    decode(GOOD, LIMIT)
    assert b"secret" not in Path(f"/proc/{fork_server()}/environ").read_bytes()
    assert os.getsid(fork_server()) == fork_server()


def test_without_memory_the_system_ends_a_decoder_first():
    decode(GOOD, LIMIT)
    assert wait_until(Path(f"/proc/{fork_server()}/oom_score_adj").read_text) == "1000\n"


def run(code):
    code = f"import sys; sys.path.insert(0, 'tests'); from pictures import *\n{code}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)


DECODE = """
from predictor.images import sandbox
from predictor.images.decoding import decode
for format in {}:
    decode(encode(ramp(), format), 10_000)
print(sandbox._server and sandbox._server[0].pid, "pillow_heif" in sys.modules, flush=True)
"""


def test_no_process_is_started_before_the_first_such_image():
    """Nor is libheif loaded in the server."""
    with run(DECODE.format(["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM"])) as process:
        assert process.stdout.read() == b"None False\n"


def test_fork_server_ends_with_a_killed_worker():
    with run(DECODE.format(["TIFF"]) + "sys.stdin.read()") as process:
        pid = int(process.stdout.readline().split()[0])
        assert is_running(pid)
        process.kill()
        wait_until(lambda: not is_running(pid))


def test_fork_server_ends_with_a_program_that_ends():
    with run(DECODE.format(["TIFF"])) as process:
        pid = int(process.stdout.readline().split()[0])
    assert not is_running(pid)


def test_forks_of_a_process_have_fork_servers_of_their_own():
    decode(GOOD, LIMIT)
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os._exit(decode(GOOD, LIMIT).size != (8, 8))
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert decode(GOOD, LIMIT).size == (8, 8)


def test_waiting_for_a_process_lets_other_threads_run(answering):
    answering(HANG)
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(decode, GOOD, LIMIT)
        (pid,) = wait_until(lambda: sandbox._server and children(fork_server()))
        threading.Thread(target=done.set).start()
        assert done.wait(10)
        os.kill(pid, signal.SIGKILL)

import os
import threading
from signal import SIGCONT, SIGSTOP

import pytest
import requests

from onnx_files import write
from pictures import picture
from proxies import free_port
from waiting import wait_until
from web.access import TOKEN, bearer
from web.managed import MANAGER

pytest.importorskip("onnxruntime")
INPUT = "[input]\nsize = 64\nresize = 64\nmean = 0\nstd = 1\n"


@pytest.fixture
def folder(tmp_path):
    for version in (1, 2):
        place = tmp_path / "flowers" / str(version)
        place.mkdir(parents=True)
        write(place / "model.onnx")
        (place / "model.toml").write_text(INPUT)
    (tmp_path / "store.toml").write_text("[models.flowers]\nversions = [1]\n")
    return tmp_path


@pytest.fixture
def managed(start, folder):
    """A server of two processes, whose management API has an address of its own."""
    bind = f"127.0.0.1:{free_port()}"
    server = start(
        "--workers=2", model="", store=folder, management_tokens=MANAGER, management_bind=bind,
        tokens=TOKEN,
    )  # fmt: skip
    server.management = f"http://{bind}"
    wait_until(lambda: server.loaded == 2)
    return server


def test_changes_at_an_address_of_their_own_reach_all_processes(managed):
    def ask(method, path, **options):
        return requests.request(method, path, headers=bearer(MANAGER), timeout=60, **options)

    for method, path in (("POST", "/models?url=flowers"), ("GET", "/models/flowers/split")):
        assert ask(method, managed.url + path).status_code == 404
    for path in ("/", "/predict", "/healthz", "/openapi.json"):
        assert ask("GET", managed.management + path).status_code == 404
    registered = ask("POST", f"{managed.management}/models?url=flowers&initial_workers=2"
                             "&synchronous=true")  # fmt: skip
    assert registered.status_code == 200, registered.text
    for _ in range(20):  # both processes have followed
        answer = requests.post(
            f"{managed.url}/predictions/flowers/2.0", picture(), headers=bearer(TOKEN), timeout=60
        )
        assert answer.status_code == 200
    too_many = ask("PUT", f"{managed.management}/models/flowers?min_worker=3")
    assert too_many.json()["message"].startswith("min_worker is 3, but 2 processes run.")
    assert "register flowers/2, status 200" in managed.log
    assert MANAGER not in managed.log


def test_change_that_waits_for_a_process_names_it_and_holds_up_nobody(start, folder):
    server = start(
        "--workers=2", model="", store=folder, management_tokens=MANAGER, request_timeout_s=3
    )

    def refused():
        url = f"{server.url}/models/flowers?min_worker=3"
        return requests.put(url, headers=bearer(MANAGER), timeout=60).text

    wait_until(lambda: "but 2 processes run" in refused())  # both have said what they serve
    answers = []

    def load():
        url = f"{server.url}/models?url=flowers"
        answers.append(requests.post(url, headers=bearer(MANAGER), timeout=60))

    os.kill(server.worker, SIGSTOP)
    try:
        change = threading.Thread(target=load)
        change.start()
        wait_until(lambda: "[1, 2]" in (folder / "store.toml").read_text())
        for path in ("/", "/healthz", "/metrics", "/models", "/openapi.json"):
            assert server.get(path).status_code == 200
        change.join()
    finally:
        os.kill(server.worker, SIGCONT)
    assert answers[0].status_code == 503
    assert f"have not followed: {server.worker}." in answers[0].json()["message"]


def test_bind_on_the_command_line_must_name_the_address_of_management(start, folder):
    bind = f"127.0.0.1:{free_port()}"
    server = start(
        "--bind=127.0.0.1:0", model="", store=folder, management_tokens=MANAGER,
        management_bind=bind,
    )  # fmt: skip
    assert server.process.wait(timeout=60) == 1
    assert f"also add --bind {bind}." in server.log


def test_development_server_refuses_a_second_address(folder, monkeypatch):
    from app import create_app
    from predictor.settings import Settings

    environ = {"STORE": folder, "MANAGEMENT_TOKENS": MANAGER, "MANAGEMENT_BIND": "127.0.0.1:8081"}
    settings = Settings.from_env({f"PREDICTOR_{name}": str(text) for name, text in environ.items()})
    with pytest.raises(SystemExit, match="unset PREDICTOR_MANAGEMENT_BIND"):
        create_app(settings)


@pytest.mark.parametrize(
    ("given", "lacks"),
    [({"MANAGEMENT_TOKENS": MANAGER}, "STORE"),
     ({"MANAGEMENT_BIND": "127.0.0.1:8081", "STORE": "x"}, "MANAGEMENT_TOKENS_FILE")],
)  # fmt: skip
def test_management_setting_without_an_effect_stops_the_start(given, lacks):
    from predictor.errors import SettingsError
    from predictor.settings import Settings

    with pytest.raises(SettingsError, match=f"no effect without PREDICTOR_{lacks}"):
        Settings.from_env({f"PREDICTOR_{name}": text for name, text in given.items()})

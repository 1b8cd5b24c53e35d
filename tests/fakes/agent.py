"""A fake of ngrok's agent, version 3, with its log and its API; its tunnels lead nowhere.

pyngrok starts it with ``start --none``, flask-ngrok with ``http ADDRESS``. The token "revoked" is
refused. It writes its port and its process id to the files `port` and `process` in its folder.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

URL = "https://abc.ngrok-free.app"
options = dict(zip(sys.argv, sys.argv[1:], strict=False))
token = options.get("--authtoken") or os.environ.get("NGROK_AUTHTOKEN")
endpoints = {}


class API(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"endpoints": list(endpoints.values()), "tunnels": list(endpoints.values())})

    def do_POST(self):
        endpoint = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoints[endpoint["name"]] = {**endpoint, "url": URL}
        self.answer(endpoints[endpoint["name"]])

    def do_DELETE(self):
        endpoints.pop(self.path.rpartition("/")[2])
        self.answer({})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def log(line):
    print(f"t=2026-11-25T00:00:00+0000 {line}", file=out, flush=True)


out = open(options["--log"], "a") if options["--log"] != "stdout" else sys.stdout  # noqa: SIM115
if token == "revoked":
    log(
        'lvl=eror msg="failed to auth" err="Your authtoken: revoked\\r\\n\\r\\nERR_NGROK_107\\r\\n"'
    )
    sys.exit(1)
if sys.argv[1] == "http":
    endpoints["command_line"] = {"public_url": URL, "config": {"addr": sys.argv[2]}}
server = HTTPServer(("127.0.0.1", 0), API)
Path(__file__).with_name("port").write_text(str(server.server_port))
Path(__file__).with_name("process").write_text(str(os.getpid()))
log(f'lvl=info msg="starting web service" obj=web addr=127.0.0.1:{server.server_port}')
log('lvl=info msg="client session established" obj=csess')
log('lvl=info msg="tunnel session started" obj=tunnels.session')
server.serve_forever()

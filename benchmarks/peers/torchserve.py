"""TorchServe with the archive of ``predictor export torchserve``."""

import os
import sys
import tempfile
from pathlib import Path

from predictor.export.torchserve import free_ports

if __name__ == "__main__":
    ports = free_ports() | {"inference_address": f"http://127.0.0.1:{os.environ['PORT']}"}
    store, config = Path(sys.argv[1]), Path(tempfile.gettempdir(), "config.properties")
    own = "".join(f"{key}={value}\n" for key, value in ports.items())
    config.write_text((store / config.name).read_text() + own)
    command = ["torchserve", "--start", "--foreground", "--ncs", "--model-store", str(store)]
    os.chdir(config.parent)  # logs are written here
    os.execvp(command[0], [*command, "--ts-config", str(config)])

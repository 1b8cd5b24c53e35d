#!/bin/sh
# The tritonserver in nvidia-pytriton's wheel, with its python backend. `make` copies this file into
# the bin folder of the environment that has the wheel; models run with the packages in there.
set -e
bin=$(dirname "$(readlink -f "$0")")
eval "$("$bin/python" -c '
import sys, sysconfig
print("version={}.{}".format(*sys.version_info))
print("packages=" + sysconfig.get_path("purelib"))
print("library=" + sysconfig.get_config_var("LIBDIR"))
')"
server=$packages/pytriton/tritonserver
stub=triton_python_backend_stub
[ -e "$server/backends/python/$stub" ] ||
  cp "$server/python_backend_stubs/$version/$stub" "$server/backends/python/"
export PATH="$bin:$PATH" # the stub ignores PYTHONPATH, and takes the packages of PATH's python3
export LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" # libpython, for the stub
exec "$server/bin/tritonserver" --backend-directory="$server/backends" "$@"

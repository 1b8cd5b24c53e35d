# Usage: sh guard.sh COMMAND [ARGUMENT...], as the leader of a process group.
#
# Runs the command. When standard input closes, ends the command and all processes it has started.
# Standard input is a pipe from the app. It closes when the app ends, even if by SIGKILL.
# PR_SET_PDEATHSIG cannot replace it: it acts when the thread that opened the tunnel ends.

# Only the command keeps standard error open: the app reads it as a log, and the end of the log
# tells the app that the command has ended.
exec 3>&2 2>/dev/null
"$@" 2>&3 3>&- </dev/null &
exec 3>&-

read _
trap "" TERM # kill 0 signals the whole group, which includes this shell
kill 0
command -p sleep 3
kill -9 0

"""Run one command to its end and say what it cost, in a process so small that it does not count.

python -IS launch.py FOLDER COMMAND…    →    a line: seconds, processor seconds, largest process in MB, exit code

The kernel reports as a process's largest size at least that of the process it was started from. A benchmark with its
libraries would therefore report its own size for every small tool.
"""

import os
import resource
import sys
import time

QUIET = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
"""Nothing to ask and nowhere to print; stderr is the caller's, who shows it if the command fails."""

UNIT = 1 if sys.platform == "darwin" else 1024
"""In what the kernel counts the largest size."""


def main() -> None:
    folder, *command = sys.argv[1:]
    os.chdir(folder)
    start = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=QUIET)
    _, status, used = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = 0 if used.ru_maxrss <= own else used.ru_maxrss * UNIT / 1e6
    print(seconds, used.ru_utime + used.ru_stime, memory, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()

"""Process 1 of a lab host: it waits for everything that loses its parent, and takes all of the host with it.

Run as a script with the standard library's barest parts, so that it starts fast and stays small.
"""

import os
import signal


def main() -> None:
    """Reap until the end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
        signal.pause()


if __name__ == "__main__":
    main()

#!/usr/local/bin/python3 -IS
"""probe PORT PAGE: print healthz, readyz or metrics of the trainer or scorer in this container; exit code 0 for 200."""

import http.client
import sys

ANSWER_S = 8.0


def main(port: str, page: str) -> int:
    """0 if the page says 200, 1 for another status or no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=ANSWER_S)
    try:
        connection.request("GET", f"/{page}")
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer at 127.0.0.1:{port}: {error}\n")
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""answers.py SECONDS PORT...: waits until each port answers an HTTP request with anything below 500."""

import sys
import time
import urllib.error
import urllib.request


def answers(port: str) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


started = time.time()
for port in sys.argv[2:]:
    while not answers(port):
        if time.time() > started + float(sys.argv[1]):
            sys.exit(f"port {port} does not answer")
        time.sleep(0.2)
    print(f"port {port} answers after {time.time() - started:.1f} s", flush=True)

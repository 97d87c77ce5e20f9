"""An inventory: a machine on which nothing is installed yet. A plan is computed for it where there is no machine.

pyinfra --dry --diff fresh_machine.py docker.py
"""

import re

# Folders that every Ubuntu has, or that a package has made by the time a deploy writes into them.
_FOLDERS = (
    "/etc",
    "/etc/apt/[a-z.]+",
    "/etc/docker",
    "/etc/systemd/system[a-z./]*",
    "/usr/share/keyrings",
    "/media[a-z/]*",
)
_FOLDER = "user=root group=root mode=drwxr-xr-x atime=1 mtime=1 ctime=1 size=4096 '/'"

_answers = {re.compile(rf"test -e ({'|'.join(_FOLDERS)}) \|\|.*stat -c"): _FOLDER}
hosts = [("@fake/fresh", {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": _answers})]

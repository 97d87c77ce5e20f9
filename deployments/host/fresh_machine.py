"""An inventory: a machine on which nothing is installed yet. A plan is computed for it where there is no machine.

pyinfra --dry fresh_machine.py docker.py
"""

hosts = [("@fake/fresh", {"fake_delay": 0, "fake_delay_jitter": 0})]

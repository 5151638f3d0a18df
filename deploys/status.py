"""Read the state of every stack of every host, in one round trip a host, and write the report.

pyinfra INVENTORY deploys/status.py --data report=report.html
"""

from pyinfra import host

from operations import declared, report

declared.askable(host)
report.write(name="Report", path=declared.text(host, "report") or "storekeeper-report.html", _sudo=declared.sudo(host))

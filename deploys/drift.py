"""Say what differs between the inventory and each host, and change nothing.

Ends with 0, with 4 where something differs, with 1 where a host could not be read.

pyinfra -y INVENTORY deploys/drift.py
"""

from pyinfra import host

from operations import declared, drift

deploys = ["deploys/provision.py"] if declared.provisions(host) else []
drift.told(name="Drift", found=drift.compare(host, *deploys, "deploys/site.py"))

"""Print everything that is declared for each host, and where each value comes from. Nothing is asked of the hosts.

pyinfra INVENTORY deploys/show.py
"""

from operations import truth

truth.show(name="Declared")

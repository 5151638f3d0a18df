"""PostgreSQL on a host: what an inventory declares of it, and the operations that make it so."""

from .model import Server, read
from .packages import sourced
from .provision import available, configured, created, databases, roles

__all__ = ["Server", "available", "configured", "created", "databases", "read", "roles", "sourced"]

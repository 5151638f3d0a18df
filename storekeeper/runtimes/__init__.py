"""How a store's process, or a service that uses the stores, is stopped, started and looked at."""

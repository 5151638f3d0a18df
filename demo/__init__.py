"""A small application with four stores, and the main job done on it through pyinfra: `make demo`."""

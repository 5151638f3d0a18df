"""Where Storekeeper runs: inventories, their data, and the stack files."""

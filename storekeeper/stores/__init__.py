"""What a store can do, and one module or small folder for each kind of store."""

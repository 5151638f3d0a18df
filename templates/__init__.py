"""Every file that is rendered onto a host, and the report."""

"""The only places that touch the operating system for processes, locks, durable files, the clock and jobs."""

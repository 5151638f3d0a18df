"""The host program: everything that can lose or prove data, as verbs that people, cron and pyinfra type alike."""

__version__ = "0.1.0"

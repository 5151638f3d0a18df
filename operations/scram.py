"""What PostgreSQL keeps of a password (RFC 5802, RFC 7677), computed here: no password is ever sent to a server or stands in its log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stringprep
import unicodedata

ITERATIONS = 4096  # PostgreSQL's own default (scram_iterations)
_SALT_BYTES = 16
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def verifier(role: str, server: str, password: str) -> str:
    """`SCRAM-SHA-256$4096:SALT$STORED:SERVER`, as `alter role ... password` takes it.

    The salt is the role's and the server's own and not random: so the same password gives the same verifier, and whether it is set can
    be told from its digest alone. Raises ValueError for a password that no client could send, or that is empty.
    """
    prepared = _prepared(password).encode()
    salt = hashlib.sha256(f"storekeeper\0{server}\0{role}".encode()).digest()[:_SALT_BYTES]
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def digest(known: str) -> str:
    """What a server is asked for instead of the verifier itself."""
    return hashlib.sha256(known.encode()).hexdigest()


def _prepared(password: str) -> str:
    """As clients prepare it (SASLprep, RFC 4013): what libpq would make of it."""
    mapped = "".join(" " if stringprep.in_table_c12(sign) else sign for sign in password if not stringprep.in_table_b1(sign))
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("the password is empty")
    if any(table(sign) for sign in prepared for table in _PROHIBITED):
        raise ValueError("the password holds a character that clients cannot send")
    return prepared


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

"""Values as they are written to a store outside this process: encrypted, and bound to their key.

Whoever can read that store learns nothing, not even document ids, and a value that no proxy with the same secret wrote
under this key is rejected.
"""

from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

_VERSION = b"\x01"
"""The first byte of a value: AES-SIV (RFC 5297) with 256-bit keys, and the key of the value as associated data."""


class Seal:
    """Encrypts and decrypts with a key that is derived from a secret."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESSIV(blake2b(secret, digest_size=64, person=b"store-seal").digest())

    def __repr__(self) -> str:
        return "Seal(***)"

    def close(self, key: bytes, value: bytes) -> bytes:
        """Encrypt a value for its key."""
        return _VERSION + self._cipher.encrypt(value, [_VERSION, key])

    def open(self, key: bytes, sealed: bytes) -> bytes | None:
        """Decrypt a value; None if it was not encrypted by `close` for this key."""
        if sealed[:1] != _VERSION:
            return None
        try:
            return self._cipher.decrypt(sealed[1:], [_VERSION, key])
        except (InvalidTag, ValueError):
            return None

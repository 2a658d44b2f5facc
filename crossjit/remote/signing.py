"""Ed25519 keys: making, reading, signing and checking. Public keys and signatures are text."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from crossjit import PROGRAM
from crossjit.errors import UserError

KIND = "ed25519:"
_MAKE = f"`{PROGRAM} stash keygen FILE` makes one"


def make(path: Path) -> str:
    """Make a key in a new file that only its owner can read; return the public key. Raises UserError."""
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists already", hint="a key is never overwritten: give a new name") from None
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}", hint="give another"
        ) from error
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(content)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise UserError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}", hint="give another"
        ) from error
    return public_of(key)


def load(path: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises UserError if it is missing, others can read it, or it is not an Ed25519 key."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise UserError(f"others can read the key {path}", hint=f"run: chmod 600 {path}")
            content = file.read(1 << 16)
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {(error.strerror or str(error)).lower()}", hint=_MAKE) from error
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path} is not an Ed25519 key in PEM without a password", hint=_MAKE)
    return key


def public_of(key: Ed25519PrivateKey) -> str:
    """Return the public key: `ed25519:` and 44 characters of base64."""
    return KIND + base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode("ascii")


def sign(key: Ed25519PrivateKey, statement: bytes) -> str:
    """Return the signature of a statement, in base64."""
    return base64.b64encode(key.sign(statement)).decode("ascii")


def is_signed(statement: bytes, public: str, signature: str) -> bool:
    """Whether a signature is that of a public key's owner for this statement."""
    try:
        parse_public(public).verify(base64.b64decode(signature, validate=True), statement)
    except (ValueError, InvalidSignature):
        return False
    return True


def parse_public(text: str) -> Ed25519PublicKey:
    """Read a public key. Raises ValueError, whose text is for people."""
    try:
        if not text.startswith(KIND):
            raise ValueError(text)
        raw = base64.b64decode(text.removeprefix(KIND), validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error):
        raise ValueError(f"invalid key {text!r}: expected {KIND} and 44 characters of base64") from None
    if KIND + base64.b64encode(raw).decode("ascii") != text:
        raise ValueError(f"invalid key {text!r}: its base64 is not the usual one")
    return key

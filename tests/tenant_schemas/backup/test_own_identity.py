"""The installation's own age identity follows from its bundle key, and every key of the installation opens."""

from io import BytesIO

import pyrage

from tenant_schemas.backup.encryption import encrypt, read_recipients
from tenant_schemas.backup.own_identity import own_identities, own_recipient
from tenant_schemas.backup.signature import BundleKeys

OLD, NEW = bytes(32), bytes(range(32))


def test_a_key_gives_the_same_identity_for_ever() -> None:
    """Another one would not open the bundles of before."""
    assert own_recipient(BundleKeys([OLD])) == "age1mja6uk6nxy4hmd8rm3j6jnf7tkl0znlx2ksgwf9rke8mtw880assaz5hdk"


def test_what_is_encrypted_for_an_older_key_opens_after_a_rotation() -> None:
    sealed = BytesIO()
    encrypt(BytesIO(b"a password hash"), sealed, read_recipients([own_recipient(BundleKeys([OLD]))]))
    assert pyrage.decrypt(sealed.getvalue(), own_identities(BundleKeys([NEW, OLD]))) == b"a password hash"
    assert own_recipient(BundleKeys([NEW, OLD])) != own_recipient(BundleKeys([OLD]))

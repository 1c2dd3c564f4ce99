"""Add a new key to the keys that sign access tokens. Creates the key file if it is missing.

Running processes read the file again without a restart. The new key signs tokens after ten minutes, when every process
and every reader of the published keys has it. Older keys verify tokens until they are removed, see --keep. A token of a
removed key is refused and its client has to refresh it, so rotate no more often than tokens expire (TOKEN_SECONDS), or
raise --keep.

For keys in the variable SIGNING_KEYS: make a file, copy its text into the variable, and restart the processes.

Example:
    python -m scripts.rotate_signing_key --file /etc/wallet/signing_keys.json

Prints the number of keys, the id of the new key, and the ids of the removed keys.

Exit codes: 0 the file has the new key; 1 the file can't be written; 2 bad arguments, or the file has no valid keys.
"""

import os
from pathlib import Path

import rich_click as click

from app.config import embedded_key_file
from app.signing_keys import LEARNING_SECONDS, parse_keys, rotated, write_key_file
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with
from scripts.support.script import Script


@click.command(cls=Script, help=__doc__)
@click.option(
    "--file",
    "given",
    type=click.Path(path_type=Path),
    help="The key file. Default: SIGNING_KEYS_FILE, or the embedded server's file.",
)
@click.option(
    "--keep",
    type=click.IntRange(2),
    default=2,
    show_default=True,
    help="Keys in the file afterwards, the new one included; the oldest are removed.",
)
def main(given: Path | None, keep: int) -> None:
    path = given or _default_file()
    try:
        before = parse_keys(path.read_text()) if path.exists() else None
        after = rotated(before, keep)
        write_key_file(path, after)
    except ValueError as error:
        exit_with(f"{path} has no valid keys: {error}", BAD_ARGUMENTS)
    except OSError as error:
        exit_with(f"{path} can't be written: {error.strerror}", FAILED)
    removed = [key.kid for key in before.keys if key not in after.keys] if before else []
    print(f"{path} has {len(after.keys)} keys; the new one is {after.keys[0].kid}.")
    print(
        f"It signs tokens in {LEARNING_SECONDS} seconds." if before else "It signs tokens at once: it is the first key."
    )
    if removed:
        print(f"Removed: {', '.join(removed)}.")


def _default_file() -> Path:
    path = os.environ.get("SIGNING_KEYS_FILE")
    if path:
        return Path(path)
    if os.environ.get("SIGNING_KEYS") or os.environ.get("DATABASE_URL"):
        exit_with("Give --file, or set SIGNING_KEYS_FILE.", BAD_ARGUMENTS)
    return embedded_key_file()


if __name__ == "__main__":
    main()

"""Put a new key in front of the keys that sign access tokens; make the file if it is missing.

Running processes read the file again by themselves. The new key signs once it has been published for ten minutes; the
older keys go on verifying until they are dropped. Tokens of a dropped key are refused, and their holders refresh them:
so rotate no faster than tokens expire (TOKEN_SECONDS), or raise --keep. For SIGNING_KEYS, make a file, put its text
into the variable, and start the processes anew.
"""

import os
from pathlib import Path

import rich_click as click

from app.config import embedded_key_file
from app.signing_keys import LEARNING_SECONDS, parse_keys, rotated, write_key_file
from scripts.support.console import BAD_ARGUMENTS, FAILED, stop


@click.command(help=__doc__)
@click.option(
    "--file", "given", type=click.Path(path_type=Path), help="Default: SIGNING_KEYS_FILE, or the embedded one."
)
@click.option(
    "--keep", type=click.IntRange(2), default=2, show_default=True, help="So many keys are left, with the new."
)
def main(given: Path | None, keep: int) -> None:
    path = given or _default_file()
    try:
        before = parse_keys(path.read_text()) if path.exists() else None
        after = rotated(before, keep)
        write_key_file(path, after)
    except ValueError as error:
        stop(f"{path} can't be used: {error}", BAD_ARGUMENTS)
    except OSError as error:
        stop(f"{path} can't be written: {error.strerror}", FAILED)
    dropped = [key.kid for key in before.keys if key not in after.keys] if before else []
    print(f"{path} has {len(after.keys)} keys; the new one is {after.keys[0].kid}.")
    print(f"It signs in {LEARNING_SECONDS} seconds." if before else "It signs at once, for it is the first.")
    if dropped:
        print(f"Dropped: {', '.join(dropped)}.")


def _default_file() -> Path:
    named = os.environ.get("SIGNING_KEYS_FILE")
    if named:
        return Path(named)
    if os.environ.get("SIGNING_KEYS") or os.environ.get("DATABASE_URL"):
        stop("Say --file, or set SIGNING_KEYS_FILE.", BAD_ARGUMENTS)
    return embedded_key_file()


if __name__ == "__main__":
    main()

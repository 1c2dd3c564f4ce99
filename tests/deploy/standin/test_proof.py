"""The proof of completeness, in Python and in TypeScript: both say the same of the same deliveries.
`tests/scripts/test_demo.py` runs it on the feed of a wallet.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.config import ROOT
from deploy.standin.proof import Incomplete, proven
from scripts.build_clients import MODULES, install_node_modules
from tests.factories.clients import needs_node

WALLET = "7f0c5f7e-0000-4000-8000-000000000001"
MOVEMENTS = [
    {"walletId": WALLET, "seq": seq, "hash": f"{seq:064x}", "previousHash": f"{seq - 1:064x}"} for seq in range(1, 6)
]
FORGED = MOVEMENTS[2] | {"previousHash": "f" * 64}
# Which movements arrive, and what each of them is: new, had before, or a fault.
DELIVERIES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "all of them": (MOVEMENTS, "new new new new new"),
    "begun late": (MOVEMENTS[2:], "new new new"),
    "one twice": ([*MOVEMENTS[:2], *MOVEMENTS[1:]], "new new had new new new"),
    "from the beginning again": (MOVEMENTS[:2] + MOVEMENTS[:3], "new new had had new"),
    "one missing": (MOVEMENTS[:2] + MOVEMENTS[3:], "new new fault fault"),
    "two exchanged": ([MOVEMENTS[0], MOVEMENTS[2], MOVEMENTS[1], MOVEMENTS[2]], "new fault new new"),
    "one changed": ([*MOVEMENTS[:2], FORGED, *MOVEMENTS[2:]], "new new fault new new new"),
}
RUN = """
import { readFileSync } from "node:fs";
import { Incomplete, proven } from "./proof.js";
const said = JSON.parse(readFileSync(0, "utf8")).map((movements) => {
  let head = null;
  return movements.map((data) => {
    try {
      const next = proven(head, data);
      head = next ?? head;
      return next ? "new" : "had";
    } catch (error) {
      if (!(error instanceof Incomplete)) throw error;
      return "fault";
    }
  }).join(" ");
});
console.log(JSON.stringify(said));
"""


@pytest.mark.parametrize("name", DELIVERIES)
def test_in_python(name: str) -> None:
    movements, expected = DELIVERIES[name]
    head, said = None, []
    for data in movements:
        try:
            following = proven(head, data)
        except Incomplete:
            said.append("fault")
        else:
            said.append("new" if following else "had")
            head = following or head
    assert " ".join(said) == expected


@needs_node
def test_in_typescript(tmp_path: Path) -> None:
    install_node_modules()
    sent = json.dumps([movements for movements, _ in DELIVERIES.values()])
    said = run_typescript(tmp_path, ROOT / "deploy" / "standin" / "proof.ts", RUN, sent)
    assert json.loads(said) == [expected for _, expected in DELIVERIES.values()]


def run_typescript(folder: Path, module: Path, program: str, sent: str) -> str:
    """What a program prints that imports the compiled module and reads this text. Call `install_node_modules` first."""
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "run.js").write_text(program)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--target", "ES2022", "--module", "ES2022"]
    subprocess.run([MODULES / ".bin" / "tsc", *strict, "--outDir", folder, module], cwd=folder, check=True)
    node = ["node", "run.js"]
    return subprocess.run(node, cwd=folder, input=sent, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("language", "name"), [("python", "proof.py"), ("ts", "proof.ts")])
def test_the_document_shows_this_code(language: str, name: str) -> None:
    assert shown_in_the_document(language) == (ROOT / "deploy" / "standin" / name).read_text()


def shown_in_the_document(language: str) -> str:
    """The proof as docs/events.md prints it."""
    return (ROOT / "docs" / "events.md").read_text().split(f"```{language}\n")[1].split("```\n")[0]

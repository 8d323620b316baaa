"""Compares examples/hosts/compose.yaml with the schema of compose files.

Ends with 1 and a line for each thing that is wrong.
"""

import importlib.util
import json
import sys
from pathlib import Path

import yaml
from jsonschema import Draft7Validator

COMPOSE = Path(__file__).resolve().parent.parent / "examples/hosts/compose.yaml"

package = Path(importlib.util.find_spec("check_jsonschema").submodule_search_locations[0])
schema = json.loads((package / "builtin_schemas/vendor/compose-spec.json").read_text())
document = yaml.safe_load(COMPOSE.read_text())
wrong = [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]
wrong += [f"{name} is missing" for name in ("postgres", "tallymark") if name not in document["services"]]
print("\n".join(wrong) or "compose.yaml is as its schema wants it")
sys.exit(bool(wrong))

"""Ends with an error where tests ran fewer than 90 % of the branches: what coverage reports counts lines as well."""

import json
import sys

share = json.load(sys.stdin)["totals"]["percent_branches_covered"]
print(f"{share:.1f} % of the branches")
sys.exit(share < 90)

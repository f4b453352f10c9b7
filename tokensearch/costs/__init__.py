"""What token counts and reduction steps cost in one cell: measured once, added up for any policy.

The sweep, which runs a model, is `costs.sweep`; all else reads and predicts without torch.
"""

from tokensearch.costs.file import costs_from_json, costs_to_json, load_costs, save_costs
from tokensearch.costs.staircase import Staircase, Tread, describe_equal_cost, fit_staircase
from tokensearch.costs.table import BlockCost, Calibration, CostTable

__all__ = [
    "BlockCost",
    "Calibration",
    "CostTable",
    "Staircase",
    "Tread",
    "costs_from_json",
    "costs_to_json",
    "describe_equal_cost",
    "fit_staircase",
    "load_costs",
    "save_costs",
]

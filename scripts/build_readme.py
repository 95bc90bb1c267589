"""Rebuild every table of README.md and docs/ from what results/ and benchmarks/results/ hold; --check only looks."""

from __future__ import annotations

import functools

import comparison_tables
import importance_tables
import lcmat_table
import readme_tables
import results_tables
import scaling_table
import speed_tables
import trajectory_table
from run_comparison import GROUPS
from run_trajectories import GROUPS as TRAJECTORIES
from tables import rebuild

if __name__ == "__main__":
    rebuild("README.md", {"results": readme_tables.results_table, "benchmarks": speed_tables.updates})
    rebuild(
        "docs/performance.md",
        {
            "methods": readme_tables.methods_table,
            "selection": readme_tables.selection_costs,
            "arithmetic": speed_tables.arithmetic,
            "allocator": speed_tables.allocator,
            "parity": speed_tables.parity,
            "memory": speed_tables.memory,
            "startup": speed_tables.startup,
            "growth": speed_tables.growth,
            "trajectory": speed_tables.trajectory,
            "trajectory_memory": speed_tables.trajectory_memory,
        },
    )
    rebuild("docs/scaling.md", {"scaling": scaling_table.table, "processes": speed_tables.processes})
    rebuild(
        "docs/results.md",
        {
            "lcmat_sweep": lcmat_table.table,
            "lcmat_longer": lcmat_table.longer_table,
            "rates": comparison_tables.rates,
            **{f"comparison_{group}": functools.partial(comparison_tables.table, group) for group in GROUPS},
            "experts": trajectory_table.experts,
            "expert_storage": trajectory_table.storage,
            "trajectory_rates": trajectory_table.rates,
            **{f"trajectories_{group}": functools.partial(trajectory_table.table, group) for group in TRAJECTORIES},
            "importance_error": importance_tables.error,
            "importance_rows": importance_tables.rows,
            "published": results_tables.published,
            "dream_curve": results_tables.dream_curve,
            "selection": results_tables.selection,
            "selection_explained": results_tables.selection_explained,
            "selection_defaults": results_tables.selection_defaults,
        },
    )

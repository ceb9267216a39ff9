"""What the pool costs, with real workers: dispatch, death notice, start-up, scaling over a sleeping handler.

python -m benchmarks.pool
"""

from __future__ import annotations

from benchmarks.pool_rate import bench


def main() -> None:
    for what, figure in bench().items():
        print(f"{what:<28} {figure:g}")


if __name__ == "__main__":
    main()

"""A program that tests start: it prints what it reads, or waits for ever."""

from __future__ import annotations

import argparse
import sys
from threading import Event

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("do")
    parser.add_argument("--parent", type=int)
    args = parser.parse_args()
    print(f"parent {args.parent}")
    if args.do == "wait":
        Event().wait()
    print(sys.stdin.read())
    sys.exit(3)

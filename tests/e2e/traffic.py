"""The traffic of the demo with a report every few milliseconds, so that a test need not wait for the next one."""

import sys

from router.demo import traffic

if __name__ == "__main__":
    traffic.PROGRESS_EVERY = 0.05
    sys.exit(traffic.main())

"""Speed and memory: bench_*.py in memory (`make bench`), and programs on real packets: see docs/measuring.md."""

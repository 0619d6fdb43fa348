"""Speed and memory: bench_*.py in memory (`make bench`), tunnel.py on the wire (`python -m bench.tunnel`)."""

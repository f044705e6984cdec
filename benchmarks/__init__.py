"""Speed against PyTorch peers, measured in one run: `make bench`, or `python -m benchmarks [--quick]`."""

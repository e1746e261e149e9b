"""The parts of the benchmark: processes and their cost, requests, peers, load generators, scenarios, report."""

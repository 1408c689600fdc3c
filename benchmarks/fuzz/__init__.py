"""What ``benchmarks.fuzz_server`` loads into schemathesis."""

"""A fuzzer of everything that reads a file: `python -m flexalign_plugin.tests.fuzz --help`, or `make fuzz`."""

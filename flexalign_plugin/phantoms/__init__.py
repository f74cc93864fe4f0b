"""Movies whose motion is known: tests, benchmarks and the demo measure the aligner against them."""

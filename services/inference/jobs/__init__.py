"""Work that outlives its call: jobs of items, done at least once each, with exactly one recorded outcome."""

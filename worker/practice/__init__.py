"""A bank and its customers to practise against: nothing here is on the worker's own path."""

"""The key broker: hands secrets to machines whose evidence was judged."""

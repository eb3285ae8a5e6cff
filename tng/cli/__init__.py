"""The operator's words in, exit statuses out; the only reader of the environment."""

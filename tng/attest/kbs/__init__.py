"""Secrets for attested machines: the key broker's protocol, both ends' values and our client."""

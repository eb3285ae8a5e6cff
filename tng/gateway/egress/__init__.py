"""Ways out: where decrypted traffic goes."""

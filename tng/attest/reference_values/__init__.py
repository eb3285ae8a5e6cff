"""Reference values: what measurements should be, from files whose signatures are verified."""

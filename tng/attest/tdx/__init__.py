"""Intel TDX: quotes, collateral, event logs, and a TDX platform in software."""

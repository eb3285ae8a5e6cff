"""How traffic enters, leaves and is routed."""

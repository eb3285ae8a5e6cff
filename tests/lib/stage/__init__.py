"""What tests put around the gateway: peers that record, judges that refuse, certificates."""

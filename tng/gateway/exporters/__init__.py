"""What sends the numbers of a gateway away: the objects `metric.exporters` of the configuration."""

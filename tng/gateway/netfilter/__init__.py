"""Traffic that the kernel leads here: rules, routes, marks, and the sockets that take it."""

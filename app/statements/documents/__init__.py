"""Documents that take too long to make within a request: jobs, and the process that works them off."""

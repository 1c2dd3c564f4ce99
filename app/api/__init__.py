"""HTTP plumbing that all features share: requests, fields, pagination, problems, OpenAPI."""

"""HTTP: routes, schemas, middleware and problem documents."""

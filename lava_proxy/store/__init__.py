"""PostgreSQL: the server, the schema, named SQL, and one connection pool with deadlines."""

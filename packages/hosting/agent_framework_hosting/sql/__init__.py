"""The SQL databases: connection, schema and migrations. The only place of the host that knows a driver."""

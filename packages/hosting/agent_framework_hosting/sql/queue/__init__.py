"""The queue of runs in PostgreSQL: Procrastinate's tables, and what is asked of them."""

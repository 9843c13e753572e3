"""The document store: JSON values, queries, updates and the SQLite file that holds them; it knows no users."""

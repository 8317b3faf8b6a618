"""Reports: tables, a self-contained HTML page, terminal tables and per-pixel maps, from plain values."""

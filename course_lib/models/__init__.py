"""One module a family; none imports another."""

"""All of Siyu on one machine: servers out of wheels, roles as supervised processes."""

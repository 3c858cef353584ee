"""The OpenAPI 3.1 document, from the contracts: nothing in it is written by hand but what is not an RPC."""

"""What programs that use sparsewell import: `sparsewell.client`."""

"""`sparsewell plan`: machines for a number of documents and of searches, from measured coefficients."""

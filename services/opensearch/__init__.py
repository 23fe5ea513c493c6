"""OpenSearch: requests and answers as values, and the two clients that send them."""

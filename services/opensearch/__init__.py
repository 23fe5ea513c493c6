"""Everything that is said to OpenSearch: requests and answers as values, and two thin clients that carry them."""

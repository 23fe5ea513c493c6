"""Who may do what: keys, the rights that they carry, and which of them a setting asks for. No I/O."""

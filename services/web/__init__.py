"""HTTP behaviour shared by all services: servers, middleware, authentication and problem+json errors."""

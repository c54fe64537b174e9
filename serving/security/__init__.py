"""Who may call the server: API keys with scopes, the hosts it answers for, and how often."""

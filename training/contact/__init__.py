"""When and through which channel customers respond: what is read, and which level of detail ships."""
